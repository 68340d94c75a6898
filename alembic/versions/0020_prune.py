"""Ended workflows can be removed once nobody may still await them.

Revision: 0020. Who may: the parent, which the workflow names, and now also where in the parent's history; and those who
found it in the place of a unique child, which `finders` keeps beyond its end. Those of before are entered at once where
that is done in a moment; elsewhere workers do it afterwards, as the chore `finders`, and nothing is removed until then.
A fork holds on to what it copies, and is entered as one who found the children that it has in its history.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 20, 2
VERSION_BEFORE = 19
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0020"
FEW = 32 << 20
"""Bytes of a table that are read in a moment."""

OPERATIONS = "What: cancel, pause, resume, retry, rewind, terminate, update, fork, prune, redeliver or drop (a signal)."
OPERATIONS_BEFORE = "What: cancel, pause, resume, retry, rewind, terminate, update, fork, redeliver or drop (a signal)."

CHORES = (
    "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old; ends: enter what "
    "ended before schema 0017, once (the row goes when that is done); finders: enter who found unique workflows before "
    "schema 0020, likewise."
)
CHORES_BEFORE = (
    "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old; ends: enter what "
    "ended before schema 0017, once (the row goes when that is done)."
)

LOCKED = """    PERFORM FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
"""
HELD = """    -- Nor may it be removed meanwhile. If it has been, there is no such workflow.
    PERFORM FROM {schema}.workflows AS w WHERE w.id = workflow_id FOR KEY SHARE;
    PERFORM {schema}.must_exist(workflow_id, 'fork');
"""
FORKED = """            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fork before the child was dispatched, or after its output was recorded.';
    END IF;
"""
FOUND = """    -- It may await them once more.
    INSERT INTO {schema}.finders (workflow_id, finder_id, location)
    SELECT (e.output->>'id')::uuid, new_id, e.location
    FROM {schema}.events AS e WHERE e.workflow_id = new_id AND e.kind = 'child_workflow' AND e.status = 'completed'
    ON CONFLICT DO NOTHING;
"""
RETRIED = """    PERFORM FROM {schema}.runs AS r WHERE r.workflow_id = ANY (all_ids) ORDER BY r.workflow_id FOR NO KEY UPDATE;
"""
REMOVED = """    PERFORM {schema}.must_exist(workflow_id, 'retry');  -- somebody may just have removed it
"""
LOOKED = """    SELECT w.* INTO flow FROM {schema}.workflows AS w WHERE w.id = workflow_id FOR NO KEY UPDATE;
"""
WENT = """    PERFORM {schema}.must_exist(workflow_id, 'rewind');  -- somebody may just have removed it
"""
REWRITTEN = [
    ("fork", [(LOCKED, LOCKED + HELD), (FORKED, FORKED + FOUND)]),
    ("retry", [(RETRIED, RETRIED + REMOVED)]),
    ("rewind", [(LOOKED, LOOKED + WENT)]),
]

SMALL = "(pg_relation_size('{text}.events') < {few} AND pg_relation_size('{text}.runs') < {few})"

ENTER = """
DO $enter$ BEGIN
    IF {small} THEN
        INSERT INTO {schema}.finders (workflow_id, finder_id, location)
        SELECT c.id, e.workflow_id, e.location
        FROM {schema}.runs AS r
        JOIN {schema}.events AS e ON e.workflow_id = r.workflow_id
        JOIN {schema}.workflows AS c ON c.id::text = e.output->>'id'
        WHERE e.kind = 'child_workflow' AND e.status = 'completed' AND c.parent_id IS DISTINCT FROM r.workflow_id
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO {schema}.chores (name) VALUES ('finders');
    END IF;
    INSERT INTO {schema}.finders (workflow_id, finder_id, location)
    SELECT r.workflow_id, found.id, '' FROM {schema}.runs AS r CROSS JOIN LATERAL unnest(r.waiters) AS found (id)
    WHERE NOT EXISTS (SELECT FROM {schema}.finders AS f WHERE f.workflow_id = r.workflow_id AND f.finder_id = found.id)
    ON CONFLICT DO NOTHING;
END $enter$
"""

SHARE = """
DO $share$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT a.privilege_type AS what, a.grantee, a.is_grantable
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = '{text}.runs'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT ' || given.what || ' ON {text}.finders TO '
            || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END
            || CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
END
$share$
"""

GRANT = """
DO $grant$
DECLARE
    made regprocedure;
    given record;
BEGIN
    FOREACH made IN ARRAY ARRAY[{made}]::regprocedure[] LOOP
        IF EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = {like}::regprocedure AND p.proacl IS NOT NULL) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
        END IF;
        FOR given IN
            SELECT a.grantee, a.is_grantable FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
            WHERE p.oid = {like}::regprocedure AND a.grantee <> p.proowner
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', made,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
                CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END LOOP;
END
$grant$
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


MADE = (
    "may_await(uuid, text, uuid)",
    "remove_workflows(uuid[], interval, boolean, boolean, text, text)",
    "prune(interval, text[], text, text, jsonb, uuid, boolean, integer, timestamp with time zone, uuid, text, text)",
)


def upgrade() -> None:
    """Keep who may await what, and add the functions, for whom `terminate` is."""
    op.add_column(
        "workflows",
        sa.Column(
            "parent_location",
            sa.Text(collation="C"),
            comment="Where in its parent's history the step stands that dispatched it; null: no parent, or code of "
            "before schema 0020.",
        ),
        schema=_schema(),
    )
    op.create_table(
        "finders",
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow that was found."),
        sa.Column("finder_id", sa.UUID(), nullable=False, comment="Who found it, or is a fork of one who has it."),
        sa.Column(
            "location",
            sa.Text(collation="C"),
            nullable=False,
            comment="Where the step stands that found it; empty: not known.",
        ),
        sa.PrimaryKeyConstraint("workflow_id", "finder_id", "location"),
        schema=_schema(),
        comment="Who may await a workflow though they are not its parent: they found it when they dispatched a unique "
        "one, or are forks. Gone with either.",
    )
    op.create_index("finders_finder", "finders", ["finder_id"], schema=_schema())
    _execute(
        "DO $index$ BEGIN IF pg_relation_size('{text}.ends') < {few} THEN "
        "CREATE INDEX ends_name ON {schema}.ends (name, ended_at, workflow_id); END IF; END $index$"
    )
    for statement in (OBJECTS / "prune.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    _execute(SHARE)
    _execute(ENTER)
    made = ", ".join(_literal(f"{_quoted()}.{function}") for function in MADE)
    like = _literal(f"{_quoted()}.terminate(uuid, text, text)")
    _execute(GRANT.replace("{made}", made).replace("{like}", like))
    _rewrite(REWRITTEN)
    _comments(OPERATIONS, CHORES)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back."""
    _comments(OPERATIONS_BEFORE, CHORES_BEFORE)
    _execute("DELETE FROM {schema}.chores WHERE name = 'finders'")
    _rewrite([(name, [(new, old) for old, new in parts]) for name, parts in REWRITTEN])
    for function in reversed(MADE):
        _execute(f"DROP FUNCTION {{schema}}.{function}")
    _execute("DROP TRIGGER runs_found ON {schema}.runs")
    _execute("DROP FUNCTION {schema}.note_finders()")
    op.drop_table("finders", schema=_schema())
    op.drop_index("ends_name", "ends", schema=_schema(), if_exists=True)
    op.drop_column("workflows", "parent_location", schema=_schema())
    _settle(VERSION_BEFORE)


def _rewrite(functions: list[tuple[str, list[tuple[str, str]]]]) -> None:
    changes = [
        {"name": name, "parts": [[_filled(old), _filled(new)] for old, new in parts], "said": "", "says": ""}
        for name, parts in functions
    ]
    _execute(
        REWRITE.replace("{literal}", _literal(_quoted())).replace(
            "{changes}", f"$changes${json.dumps(changes)}$changes$"
        )
    )


def _comments(operations: str, chores: str) -> None:
    op.alter_column("audit", "operation", existing_type=sa.Text(), comment=operations, schema=_schema())
    op.alter_column("chores", "name", existing_type=sa.Text(), comment=chores, schema=_schema())


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
    return (
        text.replace("{small}", SMALL)
        .replace("{few}", str(FEW))
        .replace("{schema}", _quoted())
        .replace("{text}", _quoted().replace("'", "''"))
        .replace("{done_channel}", _channel("done"))
        .replace("{mail_channel}", _channel("mail"))
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
