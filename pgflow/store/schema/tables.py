"""The tables, as SQLAlchemy metadata: what migrations are made from and compared with.

The hot path does not use SQLAlchemy. Views and functions are texts beside the migration that creates them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID
from sqlalchemy.types import TypeEngine

_TIME = DateTime(timezone=True)
_NOW = text("now()")


def _column(
    name: str,
    kind: TypeEngine[Any],
    comment: str,
    *,
    key: bool = False,
    null: bool = True,
    default: str | None = None,
) -> Column[Any]:
    """A column with its comment; what is not null has a default or is always given."""
    return Column(
        name,
        kind,
        primary_key=key,
        nullable=null and not key,
        server_default=None if default is None else text(default),
        comment=comment,
        autoincrement=False,
    )


def _history_columns() -> list[Column[Any]]:
    """The columns that active and forgotten history have in common."""
    return [
        _column("workflow_id", UUID(), "The workflow whose step this is.", key=True),
        _column(
            "location",
            Text(collation="C"),
            "Where the step stands, in stored form: it sorts in execution order. display_location() shows it.",
            key=True,
        ),
        _column(
            "iteration",
            Integer(),
            "The turn of the innermost loop around the step, from 0; 0 outside loops.",
            null=False,
            default="0",
        ),
        _column(
            "seq",
            Integer(),
            "The step's place in the order in which results were delivered to the code.",
        ),
        _column(
            "version",
            Integer(),
            "The version of the context that called the step (ctx.v).",
            null=False,
            default="1",
        ),
        _column(
            "kind",
            Text(),
            "activity, sleep, timeout, listen, signal_send, message_send, child_workflow, child_output, loop, branch, "
            "removed or version_check.",
            null=False,
        ),
        _column(
            "name",
            Text(),
            "The name of the activity or workflow; empty for kinds without one.",
            null=False,
            default="''",
        ),
        _column("status", Text(), "pending, completed, failed, cancelled or abandoned.", null=False),
        _column(
            "attempts",
            Integer(),
            "Attempts of the activity that have ended.",
            null=False,
            default="0",
        ),
        _column("created_at", _TIME, "When the row was first written.", null=False, default="now()"),
        _column(
            "completed_at",
            _TIME,
            "When the step ended; null while it is pending, and for one that had ended when its row was first written: "
            "then it is created_at. The view history shows it always.",
        ),
        _column("input", JSON(), "The arguments, by name."),
        _column("output", JSON(), "The recorded result; of a pending activity, what its last heartbeat told."),
        _column("error", JSON(), "The last error: its type, message and traceback."),
        _column(
            "wake_at",
            _TIME,
            "The deadline of a pending step: the end of a sleep, the next attempt.",
        ),
        _column(
            "turn_state",
            JSON(),
            "On the first row of a loop's turn: the state that the turn started with.",
        ),
        _column(
            "turn_now",
            _TIME,
            "On the first row of a loop's turn: the time that the turn started with.",
        ),
        _column("loop_progress", Integer(), "On a loop: how many of its turns have been forgotten."),
        _column("loop_state", JSON(), "On a loop: the state with which turn `loop_progress` starts."),
        _column(
            "turn_seq",
            Integer(),
            "On the first row of a loop's turn: the place in the order of completion (seq) after which the turn "
            "started.",
        ),
        _column("loop_seq", Integer(), "On a loop: the place after which turn `loop_progress` started."),
        _column("encoding", Text(), "Reserved for payload codecs; null: plain JSON."),
    ]


def make_metadata(schema: str | None = None) -> MetaData:
    """The metadata for a schema of any name.

    Example:
        make_metadata("pgflow").create_all(engine)
    """
    metadata = MetaData(schema=schema)
    Table(
        "workflows",
        metadata,
        _column(
            "id",
            UUID(),
            "The workflow's id: a UUID of version 7, or whatever was given at its dispatch.",
            key=True,
        ),
        _column("name", Text(), "The registered name of its code.", null=False),
        _column(
            "tags",
            JSONB(),
            "A flat object by which the workflow can be found.",
            null=False,
            default="'{}'::jsonb",
        ),
        _column("input", JSON(), "The arguments, by name.", null=False),
        _column("output", JSON(), "What it returned, once completed."),
        _column("error", JSON(), "What it failed with: type, message and traceback."),
        _column(
            "status",
            Text(),
            "completed, failed or cancelled; null while it may go on (then see runs.status).",
        ),
        _column("parent_id", UUID(), "The workflow that dispatched it, if one did."),
        _column("root_id", UUID(), "The first of its ancestors, if it has any."),
        _column("seed", UUID(), "The seed of its random numbers; null: its id."),
        _column("created_at", _TIME, "When it was dispatched.", null=False, default="now()"),
        _column("completed_at", _TIME, "When it reached its final status."),
        _column("state", JSON(), "What its activities keep in ActivityContext.state; null: nothing."),
        _column(
            "detached",
            Boolean(),
            "Whether it was dispatched so that cancelling its parent does not reach it.",
            null=False,
            default="false",
        ),
        _column("forked_from", UUID(), "The workflow from whose history it was forked, if it was."),
        _column(
            "tags_given",
            JSONB(),
            "The tags given at its dispatch, if an activity has changed them since; null: those in `tags`.",
        ),
        _column(
            "cancellations",
            ARRAY(Integer()),
            "Places in the order of completion (seq) at which its code was told of requests to cancel it.",
        ),
        Index(
            "workflows_tags",
            "tags",
            postgresql_using="gin",
            postgresql_ops={"tags": "jsonb_path_ops"},
            postgresql_where=text("tags <> '{}'::jsonb"),
        ),
        Index("workflows_created", "created_at", "id"),
        Index("workflows_name", "name", "created_at", "id"),
        Index("workflows_parent", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        comment="Every workflow that is retained: wide and rarely changed. No foreign keys point here: each would "
        "cost a row lock and its WAL for every step.",
    )
    Table(
        "runs",
        metadata,
        _column("workflow_id", UUID(), "The workflow.", key=True),
        _column("name", Text(), "The workflow's name, as workers ask for it.", null=False),
        _column("queue", Text(), "The queue that workers serve.", null=False, default="'default'"),
        _column("priority", Integer(), "Higher goes first.", null=False, default="0"),
        _column("status", Text(), "pending, running, sleeping, paused or failed.", null=False),
        _column(
            "wake_at",
            _TIME,
            "Pending or sleeping: the earliest moment at which it may be claimed; null: only an event wakes it.",
        ),
        _column("waiting_for", ARRAY(Text()), "Names of the signals that it waits for."),
        _column("worker_id", BigInteger(), "The worker that holds its lease."),
        _column("claim", BigInteger(), "The number of the claim, of that worker, that took it."),
        _column(
            "epoch",
            Integer(),
            "Grows at every claim: the fencing token of its lease.",
            null=False,
            default="0",
        ),
        _column("mailbox", BigInteger(), "Signals delivered to it so far.", null=False, default="0"),
        _column(
            "cancel_requested",
            Boolean(),
            "Whether somebody asked to cancel it.",
            null=False,
            default="false",
        ),
        _column(
            "unique_key",
            LargeBinary(),
            "Digest of name and tags of a live workflow that was dispatched as unique.",
        ),
        _column(
            "pause_requested",
            Boolean(),
            "Whether somebody asked to pause it: it becomes paused when its worker gives it up.",
            null=False,
            default="false",
        ),
        _column(
            "awaits_children",
            Boolean(),
            "Sleeping: whether the end of a child wakes it.",
            null=False,
            default="false",
        ),
        _column(
            "waiters",
            ARRAY(UUID()),
            "Workflows that are told of its end though they are not its parent: they found it when they dispatched a "
            "unique one.",
        ),
        _column("last_worker", BigInteger(), "The worker that may still have it in memory while it sleeps."),
        _column("reset", ARRAY(Text()), "Failed: locations of the steps that a retry runs again."),
        _column(
            "fork_before",
            Text(collation="C"),
            "Failed after the code had gone on from the failure: it cannot be retried, only forked before this "
            "location.",
        ),
        _column("freed_key", LargeBinary(), "Failed: the unique key that it held, for its retry."),
        _column(
            "suspicions",
            ARRAY(BigInteger()),
            "Workers that died, or seemed to, while their process held this workflow, and it has recorded no progress "
            "since. Null: none.",
        ),
        _column(
            "crashes",
            ARRAY(BigInteger()),
            "Those of them whose process held nothing else, as far as they have not been counted as attempts of "
            "activities.",
        ),
        _column(
            "presumed",
            BigInteger(),
            "A worker whose lease ran out while its process held nothing else: counted if another such death follows.",
        ),
        _column("suspected_at", _TIME, "When the last of these deaths was noticed."),
        Index(
            "runs_claimable",
            "queue",
            "name",
            text("priority DESC"),
            "wake_at",
            postgresql_where=text("status IN ('pending', 'sleeping') AND wake_at IS NOT NULL"),
        ),
        Index("runs_suspected", "queue", "name", postgresql_where=text("suspicions IS NOT NULL")),
        Index("runs_owned", "worker_id", "claim", postgresql_where=text("status = 'running'")),
        Index(
            "runs_unique_key",
            "unique_key",
            unique=True,
            postgresql_where=text("unique_key IS NOT NULL"),
        ),
        comment="One narrow row for each workflow that may still go on (all but completed and cancelled ones): what "
        "claims, leases and wake-ups change.",
    )
    Table(
        "events",
        metadata,
        *_history_columns(),
        comment="Active history: one row for each step that a replay reads.",
    )
    Table(
        "forgotten_events",
        metadata,
        *_history_columns(),
        _column("forgotten_at", _TIME, "When the row left active history.", null=False, default="now()"),
        comment="Forgotten history: rows of finished loop turns, kept for people to read.",
    )
    Table(
        "signals",
        metadata,
        _column("id", UUID(), "Made by whoever sends it: sent twice is sent once.", key=True),
        _column("workflow_id", UUID(), "The workflow that receives it.", null=False),
        _column("name", Text(), "The signal's type.", null=False),
        _column("body", JSON(), "Its fields.", null=False),
        Column(
            "arrival",
            BigInteger(),
            Identity(always=True),
            nullable=False,
            comment="The order in which signals were inserted.",
        ),
        _column("number", BigInteger(), "Its place in the receiver's mailbox; null until it is delivered."),
        _column("created_at", _TIME, "When it was sent.", null=False, default="now()"),
        _column("consumed_at", _TIME, "When a listen took it."),
        _column("location", Text(collation="C"), "Where that listen stands."),
        _column(
            "dropped_at",
            _TIME,
            "When the receiver had ended without taking it, when it was dropped by a person, or (see problem) set "
            "aside.",
        ),
        _column("sender_id", UUID(), "The workflow that sent it, if one did."),
        _column("encoding", Text(), "Reserved for payload codecs; null: plain JSON."),
        _column("problem", Text(), "Why it was set aside: its body does not fit the type."),
        Index("signals_dead", "id", postgresql_where=text("problem IS NOT NULL")),
        Index(
            "signals_undelivered",
            "arrival",
            postgresql_where=text("number IS NULL AND dropped_at IS NULL"),
        ),
        Index(
            "signals_waiting",
            "workflow_id",
            "number",
            postgresql_where=text("number IS NOT NULL AND consumed_at IS NULL AND dropped_at IS NULL"),
        ),
        Index("signals_workflow", "workflow_id", "consumed_at"),
        comment="Signals: inserted without a lock on the receiver, then delivered (numbered), then consumed by a "
        "listen.",
    )
    Table(
        "requests",
        metadata,
        Column(
            "id",
            BigInteger(),
            Identity(always=True),
            primary_key=True,
            comment="The order in which they were made.",
        ),
        _column("workflow_id", UUID(), "The workflow that something is asked of.", null=False),
        _column(
            "kind",
            Text(),
            "cancel, or child: a child of it has ended.",
            null=False,
        ),
        _column("created_at", _TIME, "When it was made.", null=False, default="now()"),
        comment="What is asked of workflows but for signals: inserted without a lock on them, removed when delivered.",
    )
    Table(
        "chores",
        metadata,
        _column(
            "name",
            Text(),
            "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old.",
            key=True,
        ),
        _column("holder", UUID(), "Who does it, or did it last: a number that a worker draws at its start."),
        _column("held_until", _TIME, "Until when nobody else does it; null: anybody may."),
        _column("next_at", _TIME, "When it is due.", null=False, default="now()"),
        _column("place", BigInteger(), "How far it has got.", null=False, default="0"),
        comment="What one worker at a time does for all, by a lease on the database's clock.",
    )
    Table(
        "audit",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True, comment="The order in which it was done."),
        _column("at", _TIME, "When: the transaction's time.", null=False, default="now()"),
        _column("actor", Text(), "Who, as was said; the database's role if nothing was.", null=False),
        _column("role", Text(), "The database's role that did it, whatever was said.", null=False),
        _column(
            "operation",
            Text(),
            "What: cancel, pause, resume, retry, terminate, update, fork, redeliver or drop (a signal).",
            null=False,
        ),
        _column("workflow_id", UUID(), "On which workflow; of a signal: the one that it was sent to."),
        _column("subject", Text(), "On what, where that is no workflow: the id of a signal."),
        _column("reason", Text(), "Why, as was said."),
        _column("details", JSONB(), "What else there is to know of it, such as the id of a fork."),
        Index("audit_at", "at", "id"),
        Index("audit_actor", "actor", "at", "id"),
        Index("audit_workflow", "workflow_id", "at", "id"),
        comment="What operators did: a row for each operation that changed something, written in its transaction.",
    )
    Table(
        "messages",
        metadata,
        Column(
            "id",
            BigInteger(),
            Identity(always=True),
            primary_key=True,
            comment="The order in which they were sent.",
        ),
        _column("name", Text(), "The message's type.", null=False),
        _column("tags", JSONB(), "What subscribers choose by.", null=False, default="'{}'::jsonb"),
        _column("body", JSON(), "Its fields.", null=False),
        _column("workflow_id", UUID(), "The workflow that published it."),
        _column("sent_at", _TIME, "When it was sent.", null=False, default="now()"),
        _column(
            "place",
            BigInteger(),
            "Of two messages of a workflow the later one has the higher: the epoch, and a number of the worker's. "
            "Null: not known.",
        ),
        Index("messages_name", "name", "id"),
        prefixes=["UNLOGGED"],
        comment="Messages of the last while, for large ones and for late subscribers. A server's crash empties it.",
    )
    Table(
        "workers",
        metadata,
        Column(
            "id",
            BigInteger(),
            Identity(always=True),
            primary_key=True,
            comment="The worker's number.",
        ),
        _column("host", Text(), "The machine it runs on.", null=False),
        _column("pid", Integer(), "Its process there.", null=False),
        _column(
            "lock_key",
            BigInteger(),
            "The advisory lock that its heartbeat connection holds while it lives; null: none.",
        ),
        _column("version", Text(), "The version of its code.", null=False),
        _column("queues", ARRAY(Text()), "The queues that it serves.", null=False),
        _column("started_at", _TIME, "When it registered.", null=False, default="now()"),
        _column("heartbeat_at", _TIME, "Its last heartbeat.", null=False, default="now()"),
        _column("expires_at", _TIME, "When its leases end unless another heartbeat comes.", null=False),
        _column("process", UUID(), "The process: several workers may be in one."),
        _column("held", Integer(), "How many workflows its process held when it was found dead."),
        comment="One row for each worker process that is alive, or has died and not been buried yet.",
    )
    Table(
        "schema_info",
        metadata,
        _column("version", Integer(), "The version of this schema.", key=True),
        _column(
            "compatible_from",
            Integer(),
            "The oldest version of the code that can work on it.",
            null=False,
        ),
        comment="One row: which code this schema goes with.",
    )
    return metadata
