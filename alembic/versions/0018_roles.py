"""Roles that may operate, or dispatch and signal, and nothing else.

Revision: 0018. The functions that operators and senders call run with the rights of the schema's owner from now on, so
they are no longer everybody's: who could do by hand what they do may go on calling them. Their parts are nobody's.
`dispatch_once` and `signal_once` are for the clients of roles that may write no table. The table `roles` notes which
roles `pgflow db roles` has granted what, so that later migrations give them what they add.
"""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 18, 2
VERSION_BEFORE = 17
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0018"

SENDING = ["dispatch"]
SIGNALLING = ["signal"]
OPERATING = [
    "cancel",
    "drop_signal",
    "fork",
    "operate_many",
    "pause",
    "redeliver",
    "resume",
    "retry",
    "terminate",
    "update_workflow",
]
PARTS = ["dead_signal", "end_cancelled", "forget_end", "must_exist", "send_signal", "write_audit"]

OWNERS_RIGHTS = """
DO $owner$
DECLARE
    made record;
    given record;
BEGIN
    FOR made IN
        SELECT p.oid::regprocedure AS name, p.proname,
            p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee = 0) AS everybodys
        FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname = ANY (ARRAY[{names}]::text[])
        ORDER BY 1
    LOOP
        IF made.proname <> ALL (ARRAY[{parts}]::text[]) THEN
            EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER', made.name);
        END IF;
        CONTINUE WHEN NOT made.everybodys;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made.name);
        FOR given IN
            SELECT DISTINCT a.grantee
            FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
            WHERE c.relnamespace = {literal}::regnamespace AND a.grantee <> c.relowner
              AND c.relname = CASE WHEN made.proname = 'signal' THEN 'signals' ELSE 'runs' END
              AND a.privilege_type = CASE WHEN made.proname IN ('dispatch', 'signal') THEN 'INSERT' ELSE 'UPDATE' END
              AND made.proname <> ALL (ARRAY[{parts}]::text[])
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', made.name,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END);
        END LOOP;
    END LOOP;
END
$owner$
"""

CALLERS_RIGHTS = """
DO $caller$
DECLARE
    made regprocedure;
BEGIN
    FOR made IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
        WHERE p.pronamespace = {literal}::regnamespace AND p.proname = ANY (ARRAY[{names}]::text[]) ORDER BY 1
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY INVOKER', made);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', made);
    END LOOP;
END
$caller$
"""

REWRITE = """
DO $rewrite$
DECLARE
    part jsonb;
    written text := pg_get_functiondef({function}::regprocedure);
    said text := obj_description({function}::regprocedure, 'pg_proc');
BEGIN
    FOR part IN SELECT c.value FROM jsonb_array_elements({parts}::jsonb) WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
        IF strpos(written, part->>0) = 0 THEN
            RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', {function};
        END IF;
        written := replace(written, part->>0, part->>1);
    END LOOP;
    EXECUTE 'DROP FUNCTION ' || {function};
    EXECUTE written;
    EXECUTE format('COMMENT ON FUNCTION %s IS %L', {after}, said);
END
$rewrite$
"""

SEND = [
    ("body json)", "body json, id uuid DEFAULT NULL::uuid)"),
    ("given_id uuid := {schema}.uuid7();", "given_id uuid := coalesce(id, {schema}.uuid7());"),
    (
        "VALUES (given_id, workflow_id, name, body);",
        "VALUES (given_id, workflow_id, name, body)\n    ON CONFLICT DO NOTHING;",
    ),
]


def upgrade() -> None:
    """Add the table and the functions, and change whose rights the others run with."""
    op.create_table(
        "roles",
        sa.Column("role", sa.Text(), nullable=False, comment="The role's name."),
        sa.Column("kind", sa.Text(), nullable=False, comment="What it is: worker, reader, operator or sender."),
        sa.Column(
            "payloads",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Of a reader: whether it sees payloads.",
        ),
        sa.Column(
            "granted_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was granted this.",
        ),
        sa.PrimaryKeyConstraint("role", "kind"),
        schema=_schema(),
        comment="The roles that `pgflow db roles` has granted rights: migrations give them what they add.",
    )
    _rewrite("send_signal(uuid, text, json)", SEND, "send_signal(uuid, text, json, uuid)")
    for statement in (OBJECTS / "roles.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    _run(OWNERS_RIGHTS, [*SENDING, *SIGNALLING, *OPERATING, *PARTS, "dispatch_once", "signal_once"])
    _settle(VERSION)


def downgrade() -> None:
    """Take it back: each function runs with its caller's rights again, and is everybody's."""
    _execute("DROP FUNCTION {schema}.signal_once(uuid, uuid, text, jsonb, text, json)")
    _execute("DROP FUNCTION {schema}.dispatch_once(uuid, text, json, jsonb, boolean, timestamptz, integer, text)")
    back = [(new, old) for old, new in SEND]
    _rewrite("send_signal(uuid, text, json, uuid)", back, "send_signal(uuid, text, json)")
    _run(CALLERS_RIGHTS, [*SENDING, *SIGNALLING, *OPERATING, *PARTS])
    op.drop_table("roles", schema=_schema())
    _settle(VERSION_BEFORE)


def _run(statement: str, names: list[str]) -> None:
    _execute(
        statement.replace("{literal}", _literal(_quoted()))
        .replace("{names}", ", ".join(_literal(name) for name in names))
        .replace("{parts}", ", ".join(_literal(name) for name in PARTS))
    )


def _rewrite(before: str, parts: list[tuple[str, str]], after: str) -> None:
    filled = json.dumps([[_filled(old), _filled(new)] for old, new in parts])
    _execute(
        REWRITE.replace("{function}", _literal(f"{_quoted()}.{before}"))
        .replace("{after}", _literal(f"{_quoted()}.{after}"))
        .replace("{parts}", f"$parts${filled}$parts$")
    )


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _filled(text: str) -> str:
    return text.replace("{schema}", _quoted())


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
