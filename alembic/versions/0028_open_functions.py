"""Until roles are granted anything by `pgflow db roles`, functions run with their caller's rights and are everybody's to call.

Revision: 0028. They were so before schema 0018 (unless they had been taken from everybody by hand: then they stay as they
are), and who was granted rights on tables by hand relies on it. `pgflow db roles` gives those that operate, dispatch and signal the rights of the schema's owner, and takes them from everybody.
Functions of triggers, which run with the owner's rights always, are nobody's to put on tables of their own.
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

SENDING = ["dispatch", "dispatch_once"]
SIGNALLING = ["signal", "signal_once"]
OPERATING = [
    "cancel",
    "drop_signal",
    "fork",
    "operate_many",
    "pass_deadlines",
    "pause",
    "prune",
    "redeliver",
    "remove_workflows",
    "reset_retention",
    "resume",
    "retry",
    "rewind",
    "set_retention",
    "terminate",
    "update_workflow",
    "wake",
]
PARTS = [
    "copy_history",
    "dead_signal",
    "end_cancelled",
    "end_timed_out",
    "forget_end",
    "hint_at_deadline",
    "may_await",
    "must_exist",
    "retention_seconds",
    "return_signals",
    "send_signal",
    "turn_location",
    "turn_of",
    "undo_history",
    "write_audit",
]

OPEN = """
DO $open$
DECLARE
    made record;
BEGIN
    IF EXISTS (SELECT FROM {schema}.roles) OR NOT EXISTS (
        SELECT FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname = 'display_location'
          AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0)))
    THEN
        RETURN;  -- somebody has taken functions from everybody by hand
    END IF;
    FOR made IN
        SELECT p.oid::regprocedure AS name FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname = ANY (ARRAY[{names}]::text[]) ORDER BY 1
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY INVOKER', made.name);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', made.name);
    END LOOP;
END
$open$
"""

CLOSE = """
DO $close$
DECLARE
    made record;
    given record;
BEGIN
    IF EXISTS (SELECT FROM {schema}.roles) OR NOT EXISTS (
        SELECT FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname = 'display_location'
          AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0)))
    THEN
        RETURN;  -- somebody has taken functions from everybody by hand
    END IF;
    FOR made IN
        SELECT p.oid::regprocedure AS name, p.proname FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname = ANY (ARRAY[{names}]::text[]) ORDER BY 1
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made.name);
        CONTINUE WHEN made.proname = ANY (ARRAY[{parts}]::text[]);
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', made.name);
        FOR given IN
            SELECT DISTINCT a.grantee
            FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
            WHERE c.relnamespace = {literal}::regnamespace AND a.grantee <> c.relowner
              AND c.relname = CASE WHEN made.proname LIKE 'signal%' THEN 'signals' ELSE 'runs' END
              AND a.privilege_type = CASE WHEN made.proname LIKE ANY ('{"dispatch%","signal%"}') THEN 'INSERT' ELSE 'UPDATE' END
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', made.name,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END);
        END LOOP;
    END LOOP;
END
$close$
"""


TRIGGERS = """
DO $triggers$
DECLARE
    made regprocedure;
BEGIN
    FOR made IN
        SELECT p.oid FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.prorettype = 'trigger'::regtype ORDER BY p.oid::regprocedure::text
    LOOP
        EXECUTE format('{change}', made);
    END LOOP;
END
$triggers$
"""
"""Functions of triggers run with the owner's rights: nobody is to put them on tables of their own."""


def upgrade() -> None:
    """Open them, unless roles were granted."""
    _run(TRIGGERS.replace("{change}", "REVOKE ALL ON FUNCTION %s FROM PUBLIC"))
    _run(OPEN)
    _settle(VERSION)


def downgrade() -> None:
    """Close them, as those before did."""
    _run(CLOSE)
    _run(TRIGGERS.replace("{change}", "GRANT EXECUTE ON FUNCTION %s TO PUBLIC"))
    _settle(VERSION_BEFORE)


def _run(statement: str) -> None:
    names = [*SENDING, *SIGNALLING, *OPERATING, *PARTS]
    filled = (
        statement.replace("{literal}", _literal(_quoted()))
        .replace("{names}", ", ".join(map(_literal, names)))
        .replace("{parts}", ", ".join(map(_literal, PARTS)))
        .replace("{schema}", _quoted())
    )
    op.execute(sa.text(filled.replace(":", "\\:")))


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
