"""`dispatch` in SQL starts nothing under an id whose workflow is being removed, and says so: it took that one for a known one.

Revision: 0029. The clients' statement does the same.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 29, 2
VERSION_BEFORE = 28

NAMED = "CASE w.status WHEN 'removing' THEN w.name || ' (being removed)' ELSE w.name END"
CHANGES = {
    "dispatch": (
        "SELECT w.id, w.name INTO found_id, found_name FROM {schema}.workflows AS w WHERE w.id = given_id;",
        f"SELECT w.id, {NAMED} INTO found_id, found_name FROM {{schema}}.workflows AS w WHERE w.id = given_id;",
    ),
    "dispatch_once": (
        "SELECT w.id, w.name INTO started_id, started_name FROM {schema}.workflows AS w WHERE w.id = id AND w.name <> name;",
        f"SELECT w.id, {NAMED} INTO started_id, started_name\n    FROM {{schema}}.workflows AS w "
        "WHERE w.id = id AND (w.name <> name OR w.status = 'removing');",
    ),
}

REWRITE = """
DO $rewrite$
DECLARE
    found regprocedure;
    written text;
BEGIN
    SELECT p.oid INTO STRICT found FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = '{name}';
    written := pg_get_functiondef(found);
    IF strpos(written, $part${old}$part$) = 0 THEN
        RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', found;
    END IF;
    EXECUTE replace(written, $part${old}$part$, $part${new}$part$);
END
$rewrite$
"""
"""They are replaced in place: comments and grants stay."""


def upgrade() -> None:
    """Say so."""
    for name, (old, new) in CHANGES.items():
        _rewrite(name, old, new)
    _settle(VERSION)


def downgrade() -> None:
    """Take it for a known one."""
    for name, (old, new) in CHANGES.items():
        _rewrite(name, new, old)
    _settle(VERSION_BEFORE)


def _rewrite(name: str, old: str, new: str) -> None:
    text = REWRITE.replace("{name}", name).replace("{old}", old).replace("{new}", new)
    literal = "'" + _quoted().replace("'", "''") + "'"
    op.execute(sa.text(text.replace("{literal}", literal).replace("{schema}", _quoted()).replace(":", "\\:")))


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '"'
