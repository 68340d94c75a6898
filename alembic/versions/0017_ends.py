"""Lists by what a workflow has come to: `ends` has a row for each that is completed or cancelled, and `runs` says of each
when it was dispatched, and of a failed one when and of what it failed.

Revision: 0017. Triggers write them, so that code of before does too. An index on `workflows` that mentions what changes
at the end would end the updates in place there; so there is none. What ended before is entered at once where that is
done in a moment; elsewhere workers do it afterwards, a few pages at a time, as the chore `ends`, and the row of that
chore stays until it is done: until then lists do without. Queue and priority of what ended before are not known.
"""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 17, 2
VERSION_BEFORE = 16
OBJECTS = Path(__file__).resolve().parent.parent
FEW = 32 << 20
"""Bytes of a table that are read in a moment."""

CHORES = (
    "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old; ends: enter what "
    "ended before schema 0017, once (the row goes when that is done)."
)
CHORES_BEFORE = "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old."
QUEUE_BEFORE = "The queue that workers serve; null once it has ended."
PRIORITY_BEFORE = "Higher goes first."

STAYS = "status IN ('paused', 'failed')"
FAILED = "status = 'failed'"
LISTENS = "status IN ('sleeping', 'paused') AND waiting_for IS NOT NULL"
INDEXES = {
    "runs_stopped": ("(status, created_at, workflow_id)", STAYS),
    "runs_name_stopped": ("(name, status, created_at, workflow_id)", STAYS),
    "runs_queue": (
        "(queue, created_at, workflow_id)",
        "queue <> 'default' AND status IN ('sleeping', 'paused', 'failed')",
    ),
    "runs_waiting": ("((waiting_for[1]), created_at, workflow_id)", LISTENS),
    "runs_waiting_more": ("(created_at, workflow_id)", f"{LISTENS} AND cardinality(waiting_for) > 1"),
    "runs_parked": ("(created_at, workflow_id)", "status = 'sleeping' AND wake_at IS NULL AND waiting_for IS NULL"),
    "runs_error": ("(error_type, created_at, workflow_id)", FAILED),
    "runs_name_error": ("(name, error_type, created_at, workflow_id)", FAILED),
    "runs_failed": ("(failed_at)", FAILED),
}
"""Of `runs`, for lists: what they are of, and of which rows."""

UPDATED = "    UPDATE {schema}.workflows AS w SET status = 'cancelled', error = error, completed_at = now() WHERE w.id = workflow_id\n    RETURNING w.parent_id INTO parent;\n"
DELETED = "    DELETE FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id\n    RETURNING r.waiters, coalesce(r.worker_id, r.last_worker, 0) AS owner INTO gone;\n"
ORDER_BEFORE = (
    "    -- In the order of the journal: the run first, then what is kept of the workflow, then those who are told. Nothing that its worker\n"
    "    -- still sends takes effect without the run's row.\n"
)
ORDER = (
    "    -- The run is locked. What is kept of the workflow comes first, since its end is entered in ends as the run goes; then those who are\n"
    "    -- told. Nothing that its worker still sends takes effect without the run's row.\n"
)

FORKED = (
    "    INSERT INTO {schema}.runs (workflow_id, name, queue, status, wake_at, epoch, created_at)\n"
    "    SELECT new_id, w.name, new_queue, 'pending', now(), 1, w.created_at FROM {schema}.workflows AS w WHERE w.id = new_id;\n"
)
FORKED_BEFORE = (
    "    INSERT INTO {schema}.runs (workflow_id, name, queue, status, wake_at, epoch)\n"
    "    SELECT new_id, w.name, new_queue, 'pending', now(), 1 FROM {schema}.workflows AS w WHERE w.id = new_id;\n"
)

SMALL = "(pg_relation_size('{text}.workflows') < {few} AND pg_relation_size('{text}.runs') < {few})"

ENTER = """
DO $enter$ BEGIN
    IF {small} THEN
        INSERT INTO {schema}.ends (workflow_id, name, status, created_at, ended_at)
        SELECT w.id, w.name, w.status, w.created_at, coalesce(w.completed_at, w.created_at)
        FROM {schema}.workflows AS w WHERE w.status IN ('completed', 'cancelled');
        UPDATE {schema}.runs AS r SET
            created_at = w.created_at,
            error_type = CASE WHEN r.status = 'failed' THEN {schema}.error_type(w.error) END,
            failed_at = CASE WHEN r.status = 'failed' THEN coalesce(w.completed_at, w.created_at) END
        FROM {schema}.workflows AS w WHERE w.id = r.workflow_id;
    ELSE
        INSERT INTO {schema}.chores (name) VALUES ('ends');
    END IF;
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
        WHERE c.oid = '{text}.workflows'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT ' || given.what || ' ON {text}.ends TO '
            || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END
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
    found regprocedure;
    written text;
BEGIN
    FOR change IN SELECT c.value FROM jsonb_array_elements({changes}::jsonb) WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
        SELECT p.oid::regprocedure INTO STRICT found
        FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = change->>'name';
        written := pg_get_functiondef(found);
        FOR part IN SELECT c.value FROM jsonb_array_elements(change->'parts') WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
            IF strpos(written, part->>0) = 0 THEN
                RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', found;
            END IF;
            written := replace(written, part->>0, part->>1);
        END LOOP;
        EXECUTE written;
    END LOOP;
END
$rewrite$
"""
"""Each is replaced in place: comments and grants stay."""


def upgrade() -> None:
    """Add the table, the columns, the triggers and the indexes, and enter what has ended where that is done in a moment."""
    schema = _schema()
    op.create_table(
        "ends",
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow."),
        sa.Column("name", sa.Text(), nullable=False, comment="Its name."),
        sa.Column("status", sa.Text(), nullable=False, comment="completed or cancelled."),
        sa.Column("queue", sa.Text(), comment="The queue that it was in at its end; null: not known."),
        sa.Column("priority", sa.Integer(), comment="Its priority at its end; null: not known."),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was dispatched."),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False, comment="When it ended."),
        sa.PrimaryKeyConstraint("ended_at", "workflow_id"),
        schema=schema,
        comment="One row for each workflow that is completed or cancelled, for lists: inserted as it ends, by a trigger on runs, and never "
        "changed. Gone with the workflow, or when it is to go on after all.",
    )
    for name, first, where in (
        ("ends_cancelled", [], "status = 'cancelled'"),
        ("ends_name_cancelled", ["name"], "status = 'cancelled'"),
        ("ends_queue", ["queue"], "queue <> 'default'"),
    ):
        place = [*first, "created_at", "workflow_id"]
        op.create_index(name, "ends", place, schema=schema, postgresql_where=sa.text(where))
    # Pages are marked as visible to all before a tenth of the table is new: lists read its indexes alone.
    op.execute(f"ALTER TABLE {_quoted()}.ends SET (autovacuum_vacuum_insert_scale_factor = 0.02)")
    for name, kind, comment in (
        (
            "created_at",
            sa.DateTime(timezone=True),
            "When the workflow was dispatched; null: not entered yet (see chores).",
        ),
        (
            "error_type",
            sa.Text(),
            "Failed: the type of the error, at most 200 characters; else that of its last failure, if any.",
        ),
        ("failed_at", sa.DateTime(timezone=True), "Failed: when; else when it failed last, if it has."),
    ):
        op.add_column("runs", sa.Column(name, kind, comment=comment), schema=schema)
    op.alter_column("runs", "created_at", server_default=sa.text("now()"), schema=schema)
    for statement in (OBJECTS / "objects_0017" / "ends.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    _execute(SHARE)
    _execute(ENTER)
    for name, (columns, where) in INDEXES.items():
        _execute(
            "DO $index$ BEGIN IF pg_relation_size('{text}.runs') < {few} THEN "
            f"CREATE INDEX {name} ON {{schema}}.runs {columns} WHERE {where}; END IF; END $index$"
        )
    _execute(
        "DO $index$ BEGIN IF pg_relation_size('{text}.workflows') < {few} THEN DROP INDEX {schema}.workflows_parent; "
        "CREATE INDEX workflows_children ON {schema}.workflows (parent_id, created_at, id) WHERE parent_id IS NOT NULL; "
        "END IF; END $index$"
    )
    _rewrite(
        {
            "end_cancelled": [(ORDER_BEFORE + DELETED + UPDATED, ORDER + UPDATED + DELETED)],
            "fork": [(FORKED_BEFORE, FORKED)],
        }
    )
    _chores(CHORES)
    _settle(VERSION)


def downgrade() -> None:
    """Take it all back."""
    schema = _schema()
    _chores(CHORES_BEFORE)
    _execute("DELETE FROM {schema}.chores WHERE name = 'ends'")
    _rewrite(
        {
            "end_cancelled": [(ORDER + UPDATED + DELETED, ORDER_BEFORE + DELETED + UPDATED)],
            "fork": [(FORKED, FORKED_BEFORE)],
        }
    )
    _execute("DROP INDEX IF EXISTS {schema}.workflows_children")
    _execute(
        "CREATE INDEX IF NOT EXISTS workflows_parent ON {schema}.workflows (parent_id) WHERE parent_id IS NOT NULL"
    )
    view = (OBJECTS / "objects_0002" / "views.sql").read_text(encoding="utf-8").split("--;")[0]
    _execute(view.replace("CREATE VIEW", "CREATE OR REPLACE VIEW"))
    for column, comment in (("queue", QUEUE_BEFORE), ("priority", PRIORITY_BEFORE)):
        _execute(f"COMMENT ON COLUMN {{schema}}.workflow_overview.{column} IS '{comment}'")
    for trigger, table in (("runs_failed", "runs"), ("runs_ended", "runs"), ("workflows_removed", "workflows")):
        _execute(f"DROP TRIGGER {trigger} ON {{schema}}.{table}")
    for function in ("record_failure()", "error_type(json)", "forget_end(uuid)", "forget_ends()", "record_ends()"):
        _execute(f"DROP FUNCTION {{schema}}.{function}")
    for name in INDEXES:
        op.drop_index(name, "runs", schema=schema, if_exists=True)
    for column in ("failed_at", "error_type", "created_at"):
        op.drop_column("runs", column, schema=schema)
    op.drop_table("ends", schema=schema)
    _settle(VERSION_BEFORE)


def _rewrite(functions: dict[str, list[tuple[str, str]]]) -> None:
    changes = [
        {"name": name, "parts": [[_filled(old), _filled(new)] for old, new in parts]}
        for name, parts in functions.items()
    ]
    _execute(REWRITE.replace("{literal}", "'{text}'").replace("{changes}", f"$changes${json.dumps(changes)}$changes$"))


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
    """With the names in place: {schema} as it stands in statements, {text} as it stands within quotes."""
    text = text.replace("{small}", SMALL).replace("{few}", str(FEW))
    return text.replace("{text}", _quoted().replace("'", "''")).replace("{schema}", _quoted())


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
