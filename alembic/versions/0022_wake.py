"""A workflow that sleeps can be woken.

Revision: 0022. `wake` lets it look again, and try at once what waits for its next attempt.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 22, 2
VERSION_BEFORE = 21
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0022"

OPERATIONS = (
    "What: cancel, pause, resume, retry, rewind, terminate, update, wake, fork, prune, redeliver or drop (a signal)."
)
OPERATIONS_BEFORE = (
    "What: cancel, pause, resume, retry, rewind, terminate, update, fork, prune, redeliver or drop (a signal)."
)

GRANT = """
DO $grant$
DECLARE
    given record;
BEGIN
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', {made}::regprocedure);
    FOR given IN
        SELECT a.grantee, a.is_grantable FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.oid = {like}::regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', {made}::regprocedure,
            CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
            CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$grant$
"""

MADE = "wake(uuid, text, text)"


def upgrade() -> None:
    """Add the function, for whom `cancel` is."""
    for statement in (OBJECTS / "wake.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    made, like = _literal(f"{_quoted()}.{MADE}"), _literal(f"{_quoted()}.cancel(uuid, text, text)")
    _execute(GRANT.replace("{made}", made).replace("{like}", like))
    _operations(OPERATIONS)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back."""
    _execute(f"DROP FUNCTION {{schema}}.{MADE}")
    _operations(OPERATIONS_BEFORE)
    _settle(VERSION_BEFORE)


def _operations(comment: str) -> None:
    op.alter_column("audit", "operation", existing_type=sa.Text(), comment=comment, schema=_schema())


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _channel(kind: str) -> str:
    return f"pgflow_{kind}_" + hashlib.md5(_schema().encode(), usedforsecurity=False).hexdigest()[:16]


def _filled(text: str) -> str:
    return text.replace("{schema}", _quoted()).replace("{wake_channel}", _channel("wake"))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
