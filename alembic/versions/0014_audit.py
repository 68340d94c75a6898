"""Whatever an operator does to a workflow leaves a row in `audit`, in the same transaction: when, who, what, on which,
why.

Revision: 0014. The operating functions take a reason and an actor, both null where they are not given, so that they are
called as before; they are rewritten as they are found, so that each keeps whatever else has become of it, and who might
call them still may. The table is for whom `requests` is. `fork` refuses a queue whose name can be none.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 14, 2
VERSION_BEFORE = 13

CHORE = "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old."
CHORE_BEFORE = "signals: remove those that were taken or dropped some time ago."

WRITE = """
CREATE FUNCTION {schema}.write_audit(
    operation text, workflow_id uuid, subject text, reason text, actor text, details jsonb DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    role text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF actor = '' OR length(actor) > 200 OR actor ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION '%: actor=%: expected a name of 1 to 200 printable characters', operation, quote_literal(left(actor, 300))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF length(reason) > 2000 THEN
        RAISE EXCEPTION '%: the reason has % characters, expected at most 2000', operation, length(reason)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO {schema}.audit (actor, role, operation, workflow_id, subject, reason, details)
    VALUES (coalesce(actor, role), role, operation, workflow_id, subject, nullif(reason, ''), details);
END
$function$
"""
COMMENT = """
COMMENT ON FUNCTION {schema}.write_audit(text, uuid, text, text, text, jsonb) IS
'Leaves a row in the table audit. The actor is the database''s role if none is given.'
"""

SHARE = """
DO $share$
DECLARE
    given record;
BEGIN
    IF EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = {like_function}::regprocedure AND p.proacl IS NOT NULL) THEN
        REVOKE ALL ON FUNCTION {called} FROM PUBLIC;
    END IF;
    FOR given IN
        SELECT a.privilege_type || ' ON {table} TO ' AS what, a.grantee, a.is_grantable
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = {like_table}::regclass AND a.grantee <> c.relowner
        UNION ALL
        SELECT a.privilege_type || ' ON FUNCTION {function} TO ', a.grantee, a.is_grantable
        FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.oid = {like_function}::regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE 'GRANT ' || given.what || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END
            || CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
END
$share$
"""

REWRITE = """
DO $rewrite$
DECLARE
    change jsonb;
    part jsonb;
    found record;
    written text;
    made regprocedure;
    given record;
BEGIN
    FOR change IN SELECT c.value FROM jsonb_array_elements({changes}::jsonb) WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
        SELECT p.oid, p.oid::regprocedure AS name, p.proacl, p.proowner, obj_description(p.oid, 'pg_proc') AS comment INTO STRICT found
        FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = change->>'name';
        written := pg_get_functiondef(found.oid);
        FOR part IN SELECT c.value FROM jsonb_array_elements(change->'parts') WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
            IF strpos(written, part->>0) = 0 THEN
                RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', found.name;
            END IF;
            written := replace(written, part->>0, part->>1);
        END LOOP;
        EXECUTE 'DROP FUNCTION ' || found.name;
        EXECUTE written;
        SELECT p.oid::regprocedure INTO STRICT made
        FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = change->>'name';
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', made, replace(found.comment, change->>'said', '') || (change->>'says'));
        CONTINUE WHEN found.proacl IS NULL;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
        FOR given IN SELECT a.grantee, a.is_grantable FROM aclexplode(found.proacl) AS a WHERE a.grantee <> found.proowner LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', made,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
                CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END LOOP;
END
$rewrite$
"""

WHO_AND_WHY = ", reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)"
SAYS = " The reason and the actor go into the table audit."
ON_SIGNAL = (
    "    PERFORM {schema}.write_audit('%s', s.workflow_id, s.id::text, reason, actor, %s)\n"
    "    FROM {schema}.signals AS s WHERE s.id = signal_id;\n"
    "    RETURN signal_id;\nEND"
)
FUNCTIONS = {
    "cancel": {
        "(workflow_id uuid)": "(workflow_id uuid" + WHO_AND_WHY,
        "    RETURN true;\nEND": (
            "    PERFORM {schema}.write_audit('cancel', workflow_id, NULL, reason, actor);\n    RETURN true;\nEND"
        ),
    },
    "pause": {
        "(workflow_id uuid)": "(workflow_id uuid" + WHO_AND_WHY,
        "    owner bigint;\n": "    owner bigint;\n    already boolean;\n",
        "    PERFORM {schema}.must_exist(workflow_id, 'pause');\n": (
            "    PERFORM {schema}.must_exist(workflow_id, 'pause');\n"
            "    SELECT r.status = 'paused' OR r.pause_requested INTO already\n"
            "    FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;\n"
        ),
        "    RETURN owner IS NOT NULL;\n": (
            "    IF owner IS NOT NULL AND NOT already THEN\n"
            "        PERFORM {schema}.write_audit('pause', workflow_id, NULL, reason, actor);\n"
            "    END IF;\n"
            "    RETURN owner IS NOT NULL;\n"
        ),
    },
    "resume": {
        "(workflow_id uuid)": "(workflow_id uuid" + WHO_AND_WHY,
        "    RETURN true;\nEND": (
            "    PERFORM {schema}.write_audit('resume', workflow_id, NULL, reason, actor);\n    RETURN true;\nEND"
        ),
    },
    "retry": {
        "(workflow_id uuid)": "(workflow_id uuid" + WHO_AND_WHY,
        "    END LOOP;\nEND": (
            "    END LOOP;\n    PERFORM {schema}.write_audit('retry', workflow_id, NULL, reason, actor);\nEND"
        ),
    },
    "fork": {
        "queue text DEFAULT NULL::text)": "queue text DEFAULT NULL::text" + WHO_AND_WHY,
        "BEGIN\n    PERFORM {schema}.must_exist(workflow_id, 'fork');\n": (
            "BEGIN\n    IF queue = '' OR length(queue) > 200 OR queue ~ '[[:cntrl:]]' THEN\n        RAISE EXCEPTION "
            "'fork: queue=%: expected a name of 1 to 200 printable characters', quote_literal(left(queue, 300))\n     "
            "       USING ERRCODE = 'invalid_parameter_value';\n    END IF;\n    PERFORM "
            "{schema}.must_exist(workflow_id, 'fork');\n"
        ),
        "    RETURN new_id;\nEND": (
            "    PERFORM {schema}.write_audit('fork', workflow_id, NULL, reason, actor, jsonb_build_object(\n"
            "        'new_id', new_id, 'before', {schema}.display_location(before), 'queue', new_queue));\n"
            "    RETURN new_id;\nEND"
        ),
    },
    "redeliver": {
        "body json DEFAULT NULL::json)": "body json DEFAULT NULL::json" + WHO_AND_WHY,
        "    RETURN signal_id;\nEND": (
            ON_SIGNAL % ("redeliver", "jsonb_build_object('name', s.name, 'body_replaced', redeliver.body IS NOT NULL)")
        ),
    },
    "drop_signal": {
        "(signal_id uuid)": "(signal_id uuid" + WHO_AND_WHY,
        "    RETURN signal_id;\nEND": ON_SIGNAL % ("drop", "jsonb_build_object('name', s.name)"),
    },
}
"""What becomes of each function, part by part."""


def upgrade() -> None:
    """Add the table, who writes to it, and the chore that keeps it from growing."""
    op.create_table(
        "audit",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="The order in which it was done."
        ),
        sa.Column(
            "at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When: the transaction's time.",
        ),
        sa.Column("actor", sa.Text(), nullable=False, comment="Who, as was said; the database's role if nothing was."),
        sa.Column("role", sa.Text(), nullable=False, comment="The database's role that did it, whatever was said."),
        sa.Column(
            "operation",
            sa.Text(),
            nullable=False,
            comment="What: cancel, pause, resume, retry, fork, redeliver or drop (a signal).",
        ),
        sa.Column("workflow_id", sa.UUID(), comment="On which workflow; of a signal: the one that it was sent to."),
        sa.Column("subject", sa.Text(), comment="On what, where that is no workflow: the id of a signal."),
        sa.Column("reason", sa.Text(), comment="Why, as was said."),
        sa.Column("details", postgresql.JSONB(), comment="What else there is to know of it, such as the id of a fork."),
        sa.PrimaryKeyConstraint("id"),
        schema=_schema(),
        comment="What operators did: a row for each operation that changed something, written in its transaction.",
    )
    op.create_index("audit_at", "audit", ["at", "id"], schema=_schema())
    op.create_index("audit_actor", "audit", ["actor", "at", "id"], schema=_schema())
    op.create_index("audit_workflow", "audit", ["workflow_id", "at", "id"], schema=_schema())
    _execute(WRITE)
    _execute(COMMENT)
    _share()
    _rewrite([(name, list(parts.items()), "", SAYS) for name, parts in FUNCTIONS.items()])
    _chores(CHORE)
    op.execute(f"INSERT INTO {_quoted()}.chores (name) VALUES ('audit')")
    _settle(VERSION)


def downgrade() -> None:
    """Take it back; what the table told is lost."""
    _rewrite([(name, [(new, old) for old, new in parts.items()], SAYS, "") for name, parts in FUNCTIONS.items()])
    _execute("DROP FUNCTION {schema}.write_audit(text, uuid, text, text, text, jsonb)")
    op.execute(f"DELETE FROM {_quoted()}.chores WHERE name = 'audit'")
    _chores(CHORE_BEFORE)
    op.drop_table("audit", schema=_schema())
    _settle(VERSION_BEFORE)


def _share() -> None:
    called = f"{_quoted()}.write_audit(text, uuid, text, text, text, jsonb)"
    names = {
        "{table}": f"{_quoted()}.audit".replace("'", "''"),
        "{like_table}": _literal(f"{_quoted()}.requests"),
        "{called}": called,
        "{function}": called.replace("'", "''"),
        "{like_function}": _literal(f"{_quoted()}.must_exist(uuid, text)"),
    }
    statement = SHARE
    for mark, name in names.items():
        statement = statement.replace(mark, name)
    _execute(statement)


def _rewrite(functions: list[tuple[str, list[tuple[str, str]], str, str]]) -> None:
    changes = [
        {"name": name, "parts": [[_filled(old), _filled(new)] for old, new in parts], "said": said, "says": says}
        for name, parts, said, says in functions
    ]
    _execute(
        REWRITE.replace("{literal}", _literal(_quoted())).replace(
            "{changes}", f"$changes${json.dumps(changes)}$changes$"
        )
    )


def _chores(comment: str) -> None:
    op.alter_column("chores", "name", existing_type=sa.Text(), comment=comment, schema=_schema())


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
    op.execute(sa.text(_filled(statement.strip()).replace(":", "\\:")))
