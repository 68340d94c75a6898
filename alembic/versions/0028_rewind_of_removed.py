"""A rewind that has waited for a workflow which is being removed meanwhile finds none.

Revision: 0028. `rewind` looks again once it has locked the workflow.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 28, 2
VERSION_BEFORE = 27

LOCKED = "    SELECT w.* INTO flow FROM {schema}.workflows AS w WHERE w.id = workflow_id FOR NO KEY UPDATE;\n"
AGAIN = "    PERFORM {schema}.must_exist(workflow_id, 'rewind');  -- others may have begun to remove it meanwhile\n"

REWRITE = """
DO $rewrite$
DECLARE
    found regprocedure := '{text}.rewind(uuid, text, text, text, text, boolean)';
    written text := pg_get_functiondef(found);
BEGIN
    IF strpos(written, $part${old}$part$) = 0 THEN
        RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', found;
    END IF;
    EXECUTE replace(written, $part${old}$part$, $part${new}$part$);
END
$rewrite$
"""
"""It is replaced in place: comment and grants stay."""


def upgrade() -> None:
    """Look again."""
    _rewrite(LOCKED, LOCKED + AGAIN)
    _settle(VERSION)


def downgrade() -> None:
    """Look once."""
    _rewrite(LOCKED + AGAIN, LOCKED)
    _settle(VERSION_BEFORE)


def _rewrite(old: str, new: str) -> None:
    text = REWRITE.replace("{old}", old).replace("{new}", new)
    filled = text.replace("{schema}", _quoted()).replace("{text}", _quoted().replace("'", "''"))
    op.execute(sa.text(filled.replace(":", "\\:")))


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '"'
