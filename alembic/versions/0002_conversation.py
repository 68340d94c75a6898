"""What workflows say to each other and others to them: signals, requests, messages, children, and how they are
operated.

Revision: 0002. A worker of before would neither deliver signals nor tell a parent that its child has ended, so the
schema is for code from this version on.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 2, 2
PLACE = Path(__file__).resolve().parent.parent
STORAGE = {
    "signals": "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000",
    "requests": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0",
    "messages": "autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 1000",
}


def mail_channel(schema: str) -> str:
    return "pgflow_mail_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def wake_channel(schema: str) -> str:
    return "pgflow_wake_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def upgrade() -> None:
    """Add the columns and tables, replace the overview."""
    schema = _schema()
    _workflows(schema)
    _runs(schema)
    _signals(schema)
    _requests(schema)
    _messages(schema)
    _outputs(schema, "The recorded result; of a pending activity, what its last heartbeat told.")
    quoted = _quoted(schema)
    for table, settings in STORAGE.items():
        op.execute(f"ALTER TABLE {quoted}.{table} SET ({settings})")
    op.execute(f"UPDATE {quoted}.schema_info SET version = {VERSION}, compatible_from = {COMPATIBLE_FROM}")
    op.execute(f"DROP VIEW {quoted}.workflow_overview")
    for name in ("find_live", "functions", "operate", "views"):
        _execute(schema, (PLACE / "objects_0002" / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Remove them again; undelivered signals and requests are lost with them."""
    schema = _schema()
    quoted = _quoted(schema)
    _outputs(schema, "The recorded result.")
    op.execute(f"DROP VIEW {quoted}.workflow_overview")
    for function in (
        "signal(uuid, text, json)",
        "signal(text, jsonb, text, json)",
        "send_signal(uuid, text, json)",
        "cancel(uuid)",
        "find_live(text, jsonb)",
        "pause(uuid)",
        "resume(uuid)",
        "retry(uuid)",
        "fork(uuid, text, uuid, text)",
        "must_exist(uuid, text)",
    ):
        op.execute(f"DROP FUNCTION {quoted}.{function}")
    for table in ("messages", "requests", "signals"):
        op.drop_table(table, schema=schema)
    for column in ("freed_key", "fork_before", "reset", "last_worker", "waiters", "awaits_children", "pause_requested"):
        op.drop_column("runs", column, schema=schema)
    for column in ("cancellations", "tags_given", "forked_from", "detached", "state"):
        op.drop_column("workflows", column, schema=schema)
    text = (PLACE / "objects_0001" / "views.sql").read_text(encoding="utf-8")
    _execute(schema, text[text.index("CREATE VIEW {schema}.workflow_overview") :])
    op.execute(f"UPDATE {quoted}.schema_info SET version = 1, compatible_from = 1")


def _workflows(schema: str) -> None:
    for column in (
        sa.Column(
            "state", postgresql.JSON(), comment="What its activities keep in ActivityContext.state; null: nothing."
        ),
        sa.Column(
            "detached",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether it was dispatched so that cancelling its parent does not reach it.",
        ),
        sa.Column("forked_from", sa.UUID(), comment="The workflow from whose history it was forked, if it was."),
        sa.Column(
            "tags_given",
            postgresql.JSONB(),
            comment="The tags given at its dispatch, if an activity has changed them since; null: those in `tags`.",
        ),
        sa.Column(
            "cancellations",
            postgresql.ARRAY(sa.Integer()),
            comment="Places in the order of completion (seq) at which its code was told of requests to cancel it.",
        ),
    ):
        op.add_column("workflows", column, schema=schema)


def _outputs(schema: str, comment: str) -> None:
    for table in ("events", "forgotten_events"):
        op.alter_column(table, "output", existing_type=postgresql.JSON(), comment=comment, schema=schema)
    op.execute(f"COMMENT ON COLUMN {_quoted(schema)}.history.output IS '{comment}'")


def _runs(schema: str) -> None:
    for column in (
        sa.Column(
            "pause_requested",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Whether somebody asked to pause it: it becomes paused when its worker gives it up.",
        ),
        sa.Column(
            "awaits_children",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="Sleeping: whether the end of a child wakes it.",
        ),
        sa.Column(
            "waiters",
            postgresql.ARRAY(sa.UUID()),
            comment="Workflows that are told of its end though they are not its parent: they found it when they "
            "dispatched a unique one.",
        ),
        sa.Column(
            "last_worker",
            sa.BigInteger(),
            comment="The worker that may still have it in memory while it sleeps.",
        ),
        sa.Column(
            "reset",
            postgresql.ARRAY(sa.Text()),
            comment="Failed: locations of the steps that a retry runs again.",
        ),
        sa.Column(
            "fork_before",
            sa.Text(collation="C"),
            comment="Failed after the code had gone on from the failure: it cannot be retried, only forked before "
            "this location.",
        ),
        sa.Column("freed_key", sa.LargeBinary(), comment="Failed: the unique key that it held, for its retry."),
    ):
        op.add_column("runs", column, schema=schema)


def _signals(schema: str) -> None:
    op.create_table(
        "signals",
        sa.Column("id", sa.UUID(), nullable=False, comment="Made by whoever sends it: sent twice is sent once."),
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow that receives it."),
        sa.Column("name", sa.Text(), nullable=False, comment="The signal's type."),
        sa.Column("body", postgresql.JSON(), nullable=False, comment="Its fields."),
        sa.Column(
            "arrival",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="The order in which signals were inserted.",
        ),
        sa.Column(
            "number", sa.BigInteger(), comment="Its place in the receiver's mailbox; null until it is delivered."
        ),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was sent.",
        ),
        sa.Column("consumed_at", sa.DateTime(timezone=True), comment="When a listen took it."),
        sa.Column("location", sa.Text(collation="C"), comment="Where that listen stands."),
        sa.Column("dropped_at", sa.DateTime(timezone=True), comment="When the receiver had ended without taking it."),
        sa.Column("sender_id", sa.UUID(), comment="The workflow that sent it, if one did."),
        sa.Column("encoding", sa.Text(), comment="Reserved for payload codecs; null: plain JSON."),
        sa.PrimaryKeyConstraint("id"),
        schema=schema,
        comment="Signals: inserted without a lock on the receiver, then delivered (numbered), then consumed by a "
        "listen.",
    )
    op.create_index(
        "signals_undelivered",
        "signals",
        ["arrival"],
        schema=schema,
        postgresql_where=sa.text("number IS NULL AND dropped_at IS NULL"),
    )
    op.create_index(
        "signals_waiting",
        "signals",
        ["workflow_id", "number"],
        schema=schema,
        postgresql_where=sa.text("number IS NOT NULL AND consumed_at IS NULL AND dropped_at IS NULL"),
    )
    op.create_index("signals_workflow", "signals", ["workflow_id", "consumed_at"], schema=schema)


def _requests(schema: str) -> None:
    op.create_table(
        "requests",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="The order in which they were made.",
        ),
        sa.Column("workflow_id", sa.UUID(), nullable=False, comment="The workflow that something is asked of."),
        sa.Column("kind", sa.Text(), nullable=False, comment="cancel, or child: a child of it has ended."),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was made.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=schema,
        comment="What is asked of workflows but for signals: inserted without a lock on them, removed when delivered.",
    )


def _messages(schema: str) -> None:
    op.create_table(
        "messages",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="The order in which they were sent.",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="The message's type."),
        sa.Column(
            "tags",
            postgresql.JSONB(),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
            comment="What subscribers choose by.",
        ),
        sa.Column("body", postgresql.JSON(), nullable=False, comment="Its fields."),
        sa.Column("workflow_id", sa.UUID(), comment="The workflow that published it."),
        sa.Column(
            "sent_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it was sent.",
        ),
        sa.PrimaryKeyConstraint("id"),
        schema=schema,
        prefixes=["UNLOGGED"],
        comment="Messages of the last while, for large ones and for late subscribers. A server's crash empties it.",
    )
    op.create_index("messages_name", "messages", ["name", "id"], schema=schema)


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted(schema: str) -> str:
    return '"' + schema.replace('"', '""') + '"'


def _execute(schema: str, statements: str) -> None:
    for statement in statements.split("--;"):
        filled = statement.strip().rstrip(";").replace("{schema}", _quoted(schema))
        for mark, channel in (("{mail_channel}", mail_channel), ("{wake_channel}", wake_channel)):
            filled = filled.replace(mark, channel(schema))
        op.execute(sa.text(filled.replace(":", "\\:")))
