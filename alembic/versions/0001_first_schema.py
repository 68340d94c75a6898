"""The first schema: workflows and their runs, active and forgotten history, workers, views and functions.

Revision: 0001.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 1, 1
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0001"
STORAGE = {
    "workflows": "fillfactor = 60",
    "runs": "fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, "
    "autovacuum_vacuum_cost_delay = 0",
    "events": "fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05",
    "forgotten_events": "autovacuum_vacuum_scale_factor = 0.05",
    "workers": "fillfactor = 50",
}


def wake_channel(schema: str) -> str:
    return "pgflow_wake_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def upgrade() -> None:
    """Create everything."""
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    op.create_table(
        "events",
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow whose step this is."),
        sa.Column(
            "location",
            sa.Text(collation="C"),
            nullable=False,
            comment="Where the step stands, in stored form: it sorts in execution order. display_location() shows it.",
        ),
        sa.Column(
            "iteration",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="The turn of the innermost loop around the step, from 0; 0 outside loops.",
        ),
        sa.Column(
            "seq",
            sa.Integer(),
            nullable=True,
            comment="The step's place in the order in which results were delivered to the code.",
        ),
        sa.Column(
            "version",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="The version of the context that called the step (ctx.v).",
        ),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="activity, sleep, timeout, listen, signal_send, message_send, child_workflow, child_output, loop, "
            "branch, removed or version_check.",
        ),
        sa.Column(
            "name",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="The name of the activity or workflow; empty for kinds without one.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="pending, completed, failed, cancelled or abandoned.",
        ),
        sa.Column(
            "attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Attempts of the activity that have ended.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the row was first written.",
        ),
        sa.Column(
            "completed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the step ended; null while it is pending.",
        ),
        sa.Column("input", postgresql.JSON(), nullable=True, comment="The arguments, by name."),
        sa.Column("output", postgresql.JSON(), nullable=True, comment="The recorded result."),
        sa.Column(
            "error",
            postgresql.JSON(),
            nullable=True,
            comment="The last error: its type, message and traceback.",
        ),
        sa.Column(
            "wake_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The deadline of a pending step: the end of a sleep, the next attempt.",
        ),
        sa.Column(
            "turn_state",
            postgresql.JSON(),
            nullable=True,
            comment="On the first row of a loop's turn: the state that the turn started with.",
        ),
        sa.Column(
            "turn_now",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="On the first row of a loop's turn: the time that the turn started with.",
        ),
        sa.Column(
            "loop_progress",
            sa.Integer(),
            nullable=True,
            comment="On a loop: how many of its turns have been forgotten.",
        ),
        sa.Column(
            "loop_state",
            postgresql.JSON(),
            nullable=True,
            comment="On a loop: the state with which turn `loop_progress` starts.",
        ),
        sa.Column(
            "turn_seq",
            sa.Integer(),
            nullable=True,
            comment="On the first row of a loop's turn: the place in the order of completion (seq) after which the "
            "turn started.",
        ),
        sa.Column(
            "loop_seq",
            sa.Integer(),
            nullable=True,
            comment="On a loop: the place after which turn `loop_progress` started.",
        ),
        sa.Column(
            "encoding",
            sa.Text(),
            nullable=True,
            comment="Reserved for payload codecs; null: plain JSON.",
        ),
        sa.PrimaryKeyConstraint("workflow_id", "location"),
        schema=schema,
        comment="Active history: one row for each step that a replay reads.",
    )
    op.create_table(
        "forgotten_events",
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow whose step this is."),
        sa.Column(
            "location",
            sa.Text(collation="C"),
            nullable=False,
            comment="Where the step stands, in stored form: it sorts in execution order. display_location() shows it.",
        ),
        sa.Column(
            "iteration",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="The turn of the innermost loop around the step, from 0; 0 outside loops.",
        ),
        sa.Column(
            "seq",
            sa.Integer(),
            nullable=True,
            comment="The step's place in the order in which results were delivered to the code.",
        ),
        sa.Column(
            "version",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="The version of the context that called the step (ctx.v).",
        ),
        sa.Column(
            "kind",
            sa.Text(),
            nullable=False,
            comment="activity, sleep, timeout, listen, signal_send, message_send, child_workflow, child_output, loop, "
            "branch, removed or version_check.",
        ),
        sa.Column(
            "name",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="The name of the activity or workflow; empty for kinds without one.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="pending, completed, failed, cancelled or abandoned.",
        ),
        sa.Column(
            "attempts",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Attempts of the activity that have ended.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the row was first written.",
        ),
        sa.Column(
            "completed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When the step ended; null while it is pending.",
        ),
        sa.Column("input", postgresql.JSON(), nullable=True, comment="The arguments, by name."),
        sa.Column("output", postgresql.JSON(), nullable=True, comment="The recorded result."),
        sa.Column(
            "error",
            postgresql.JSON(),
            nullable=True,
            comment="The last error: its type, message and traceback.",
        ),
        sa.Column(
            "wake_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="The deadline of a pending step: the end of a sleep, the next attempt.",
        ),
        sa.Column(
            "turn_state",
            postgresql.JSON(),
            nullable=True,
            comment="On the first row of a loop's turn: the state that the turn started with.",
        ),
        sa.Column(
            "turn_now",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="On the first row of a loop's turn: the time that the turn started with.",
        ),
        sa.Column(
            "loop_progress",
            sa.Integer(),
            nullable=True,
            comment="On a loop: how many of its turns have been forgotten.",
        ),
        sa.Column(
            "loop_state",
            postgresql.JSON(),
            nullable=True,
            comment="On a loop: the state with which turn `loop_progress` starts.",
        ),
        sa.Column(
            "turn_seq",
            sa.Integer(),
            nullable=True,
            comment="On the first row of a loop's turn: the place in the order of completion (seq) after which the "
            "turn started.",
        ),
        sa.Column(
            "loop_seq",
            sa.Integer(),
            nullable=True,
            comment="On a loop: the place after which turn `loop_progress` started.",
        ),
        sa.Column(
            "encoding",
            sa.Text(),
            nullable=True,
            comment="Reserved for payload codecs; null: plain JSON.",
        ),
        sa.Column(
            "forgotten_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When the row left active history.",
        ),
        sa.PrimaryKeyConstraint("workflow_id", "location"),
        schema=schema,
        comment="Forgotten history: rows of finished loop turns, kept for people to read.",
    )
    op.create_table(
        "runs",
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow."),
        sa.Column("name", sa.Text(), nullable=False, comment="The workflow's name, as workers ask for it."),
        sa.Column(
            "queue",
            sa.Text(),
            server_default=sa.text("'default'"),
            nullable=False,
            comment="The queue that workers serve.",
        ),
        sa.Column(
            "priority",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Higher goes first.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=False,
            comment="pending, running, sleeping, paused or failed.",
        ),
        sa.Column(
            "wake_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Pending or sleeping: the earliest moment at which it may be claimed; null: only an event wakes "
            "it.",
        ),
        sa.Column(
            "waiting_for",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="Names of the signals that it waits for.",
        ),
        sa.Column("worker_id", sa.BigInteger(), nullable=True, comment="The worker that holds its lease."),
        sa.Column(
            "claim",
            sa.BigInteger(),
            nullable=True,
            comment="The number of the claim, of that worker, that took it.",
        ),
        sa.Column(
            "epoch",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Grows at every claim: the fencing token of its lease.",
        ),
        sa.Column(
            "mailbox",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Signals delivered to it so far.",
        ),
        sa.Column(
            "cancel_requested",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether somebody asked to cancel it.",
        ),
        sa.Column(
            "unique_key",
            sa.LargeBinary(),
            nullable=True,
            comment="Digest of name and tags of a live workflow that was dispatched as unique.",
        ),
        sa.PrimaryKeyConstraint("workflow_id"),
        schema=schema,
        comment="One narrow row for each workflow that may still go on (all but completed and cancelled ones): what "
        "claims, leases and wake-ups change.",
    )
    op.create_index(
        "runs_claimable",
        "runs",
        ["queue", "name", sa.literal_column("priority DESC"), "wake_at"],
        unique=False,
        schema=schema,
        postgresql_where=sa.text("status IN ('pending', 'sleeping') AND wake_at IS NOT NULL"),
    )
    op.create_index(
        "runs_owned",
        "runs",
        ["worker_id", "claim"],
        unique=False,
        schema=schema,
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "runs_unique_key",
        "runs",
        ["unique_key"],
        unique=True,
        schema=schema,
        postgresql_where=sa.text("unique_key IS NOT NULL"),
    )
    op.create_table(
        "schema_info",
        sa.Column("version", sa.Integer(), nullable=False, comment="The version of this schema."),
        sa.Column(
            "compatible_from",
            sa.Integer(),
            nullable=False,
            comment="The oldest version of the code that can work on it.",
        ),
        schema=schema,
        comment="One row: which code this schema goes with.",
    )
    op.create_table(
        "workers",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="The worker's number.",
        ),
        sa.Column("host", sa.Text(), nullable=False, comment="The machine it runs on."),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Its process there."),
        sa.Column(
            "lock_key",
            sa.BigInteger(),
            nullable=True,
            comment="The advisory lock that its heartbeat connection holds while it lives; null: none.",
        ),
        sa.Column("version", sa.Text(), nullable=False, comment="The version of its code."),
        sa.Column(
            "queues",
            postgresql.ARRAY(sa.Text()),
            nullable=False,
            comment="The queues that it serves.",
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it registered.",
        ),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="Its last heartbeat.",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When its leases end unless another heartbeat comes.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=schema,
        comment="One row for each worker process that is alive, or has died and not been buried yet.",
    )
    op.create_table(
        "workflows",
        sa.Column(
            "id",
            sa.UUID(),
            nullable=False,
            comment="The workflow's id: a UUID of version 7, or whatever was given at its dispatch.",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="The registered name of its code."),
        sa.Column(
            "tags",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="A flat object by which the workflow can be found.",
        ),
        sa.Column("input", postgresql.JSON(), nullable=False, comment="The arguments, by name."),
        sa.Column("output", postgresql.JSON(), nullable=True, comment="What it returned, once completed."),
        sa.Column(
            "error",
            postgresql.JSON(),
            nullable=True,
            comment="What it failed with: type, message and traceback.",
        ),
        sa.Column(
            "status",
            sa.Text(),
            nullable=True,
            comment="completed, failed or cancelled; null while it may go on (then see runs.status).",
        ),
        sa.Column(
            "parent_id",
            sa.UUID(),
            nullable=True,
            comment="The workflow that dispatched it, if one did.",
        ),
        sa.Column(
            "root_id",
            sa.UUID(),
            nullable=True,
            comment="The first of its ancestors, if it has any.",
        ),
        sa.Column(
            "seed",
            sa.UUID(),
            nullable=True,
            comment="The seed of its random numbers; null: its id.",
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was dispatched.",
        ),
        sa.Column(
            "completed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it reached its final status.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=schema,
        comment="Every workflow that is retained: wide and rarely changed. No foreign keys point here: each would "
        "cost a row lock and its WAL for every step.",
    )
    op.create_index("workflows_name", "workflows", ["name", "id"], unique=False, schema=schema)
    op.create_index(
        "workflows_parent",
        "workflows",
        ["parent_id"],
        unique=False,
        schema=schema,
        postgresql_where=sa.text("parent_id IS NOT NULL"),
    )
    op.create_index(
        "workflows_tags",
        "workflows",
        ["tags"],
        unique=False,
        schema=schema,
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
        postgresql_where=sa.text("tags <> '{}'::jsonb"),
    )

    quoted = '"' + schema.replace('"', '""') + '"'
    for table, settings in STORAGE.items():
        op.execute(f"ALTER TABLE {quoted}.{table} SET ({settings})")
    op.execute(f"INSERT INTO {quoted}.schema_info (version, compatible_from) VALUES ({VERSION}, {COMPATIBLE_FROM})")
    versions = f"{quoted}.{op.get_context().version_table}"
    op.execute(f"COMMENT ON TABLE {versions} IS 'One row: the migration that the schema is at.'")
    op.execute(f"COMMENT ON COLUMN {versions}.version_num IS 'Its revision.'")
    for name in ("functions.sql", "views.sql"):
        for statement in (OBJECTS / name).read_text(encoding="utf-8").split("--;"):
            filled = statement.strip().rstrip(";").replace("{schema}", quoted)
            filled = filled.replace("{wake_channel}", wake_channel(schema))
            op.execute(sa.text(filled.replace(":", "\\:")))


def downgrade() -> None:
    """Remove everything but the schema itself, and with it all workflows and their history."""
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    quoted = '"' + schema.replace('"', '""') + '"'
    for view in ("workflow_overview", "history"):
        op.execute(f"DROP VIEW {quoted}.{view}")
    for function in ("dispatch", "uuid7", "display_location"):
        op.execute(f"DROP FUNCTION {quoted}.{function}")
    for table in ("schema_info", "workers", "forgotten_events", "events", "runs", "workflows"):
        op.drop_table(table, schema=schema)
