"""Hints can be switched off: a transaction that has notified anybody cannot be prepared for a two-phase commit.

Revision: 0011. Every function that sends a hint asks `may_hint` first, which knows of the setting `pgflow.hints` and of
the right to notify. They are rewritten as they are found, so that each keeps whatever else has become of it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 11, 2
BEFORE = "has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE')"

MAY_HINT = """
CREATE FUNCTION {schema}.may_hint() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
    SELECT coalesce(lower(current_setting('pgflow.hints', true)), '') NOT IN ('off', 'false', 'no', '0')
        AND coalesce({before}, false)
$function$
"""
COMMENT = (
    "COMMENT ON FUNCTION {schema}.may_hint() IS 'Whether functions send notifications: not where these are forbidden, "
    "nor while the setting pgflow.hints is off (for two-phase commits): then polling finds what they would have told "
    "of.'"
)
REWRITE = """
DO $rewrite$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT p.oid FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname <> 'may_hint' AND strpos(p.prosrc, {old}) > 0
        ORDER BY p.oid
    LOOP
        EXECUTE replace(pg_get_functiondef(found.oid), {old}, {new});
    END LOOP;
END
$rewrite$
"""


def upgrade() -> None:
    """Add the question, and have it asked."""
    _execute(MAY_HINT.replace("{before}", BEFORE))
    _execute(COMMENT)
    _rewrite(BEFORE, f"{_quoted()}.may_hint()")
    _settle(VERSION)


def downgrade() -> None:
    """Ask for the right alone, as before."""
    _rewrite(f"{_quoted()}.may_hint()", BEFORE)
    _execute("DROP FUNCTION {schema}.may_hint()")
    _settle(VERSION - 1)


def _rewrite(old: str, new: str) -> None:
    _execute(
        REWRITE.replace("{literal}", _literal(_quoted()))
        .replace("{old}", _literal(old))
        .replace("{new}", _literal(new))
    )


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(statement.strip().replace("{schema}", _quoted()).replace(":", "\\:")))
