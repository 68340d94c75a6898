"""The tables, as SQLAlchemy metadata: what migrations are made from and compared with.

The hot path does not use SQLAlchemy. Views and functions are texts beside the migration that creates them.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB, UUID

from pgflow.store.schema.columns import TIME, column, history_columns
from pgflow.store.schema.keeping_tables import add_keeping
from pgflow.store.schema.worker_tables import add_worker_tables

_PLACE = ("created_at", "workflow_id")
"""The order of lists."""


def _indexes_for_lists() -> list[Index]:
    """Of `runs`: of what waits for a person, or for a signal. What is claimed, or sleeps until a moment, is found by
    the indexes of claims: one more would cost every dispatch.
    """
    stays, failed = text("status IN ('paused', 'failed')"), text("status = 'failed'")
    listens = "status IN ('sleeping', 'paused') AND waiting_for IS NOT NULL"
    named = text("queue <> 'default' AND status IN ('sleeping', 'paused', 'failed')")
    return [
        Index("runs_stopped", "status", *_PLACE, postgresql_where=stays),
        Index("runs_name_stopped", "name", "status", *_PLACE, postgresql_where=stays),
        Index("runs_queue", "queue", *_PLACE, postgresql_where=named),
        Index("runs_waiting", text("(waiting_for[1])"), *_PLACE, postgresql_where=text(listens)),
        Index("runs_waiting_more", *_PLACE, postgresql_where=text(f"{listens} AND cardinality(waiting_for) > 1")),
        Index(
            "runs_parked",
            *_PLACE,
            postgresql_where=text("status = 'sleeping' AND wake_at IS NULL AND waiting_for IS NULL"),
        ),
        Index("runs_error", "error_type", *_PLACE, postgresql_where=failed),
        Index("runs_name_error", "name", "error_type", *_PLACE, postgresql_where=failed),
        Index("runs_failed", "failed_at", postgresql_where=failed),
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
        column(
            "id",
            UUID(),
            "The workflow's id: a UUID of version 7, or whatever was given at its dispatch.",
            key=True,
        ),
        column("name", Text(), "The registered name of its code.", null=False),
        column(
            "tags",
            JSONB(),
            "A flat object by which the workflow can be found.",
            null=False,
            default="'{}'::jsonb",
        ),
        column("input", JSON(), "The arguments, by name.", null=False),
        column("output", JSON(), "What it returned, once completed."),
        column("error", JSON(), "What it failed with: type, message and traceback."),
        column(
            "status",
            Text(),
            "completed, failed or cancelled; null while it may go on (then see runs.status). removing: piece by piece.",
        ),
        column("parent_id", UUID(), "The workflow that dispatched it, if one did."),
        column("root_id", UUID(), "The first of its ancestors, if it has any."),
        column("seed", UUID(), "The seed of its random numbers; null: its id."),
        column("created_at", TIME, "When it was dispatched.", null=False, default="now()"),
        column("completed_at", TIME, "When it reached its final status."),
        column("state", JSON(), "What its activities keep in ActivityContext.state; null: nothing."),
        column(
            "detached",
            Boolean(),
            "Whether it was dispatched so that cancelling its parent does not reach it.",
            null=False,
            default="false",
        ),
        column("forked_from", UUID(), "The workflow from whose history it was forked, if it was."),
        column(
            "tags_given",
            JSONB(),
            "The tags given at its dispatch, if an activity has changed them since; null: those in `tags`.",
        ),
        column(
            "cancellations",
            ARRAY(Integer()),
            "Places in the order of completion (seq) at which its code was told of requests to cancel it.",
        ),
        column(
            "rewinds",
            ARRAY(Text()),
            "A text for each time that it was rewound: the location before which, then what was undone before that as "
            "well (=: a step with all below it; +: from one to another in a body, or to its end). Null: never.",
        ),
        column(
            "parent_location",
            Text(collation="C"),
            "Where in its parent's history the step stands that dispatched it; null: no parent, or code of before "
            "schema 0020.",
        ),
        column(
            "timeout",
            Double(),
            "Seconds from dispatch, its last retry, rewind or fork until it is cancelled; null: it has no deadline.",
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
        Index("workflows_children", "parent_id", "created_at", "id", postgresql_where=text("parent_id IS NOT NULL")),
        comment="Every workflow that is retained: wide and rarely changed. No foreign keys point here: each would "
        "cost a row lock and its WAL for every step.",
    )
    Table(
        "runs",
        metadata,
        column("workflow_id", UUID(), "The workflow.", key=True),
        column(
            "name",
            Text(),
            "The workflow's name, as workers ask for it: that of a rewound one with the control character 31 behind "
            "it.",
            null=False,
        ),
        column("queue", Text(), "The queue that workers serve.", null=False, default="'default'"),
        column("priority", Integer(), "Higher goes first.", null=False, default="0"),
        column("status", Text(), "pending, running, sleeping, paused or failed.", null=False),
        column(
            "wake_at",
            TIME,
            "Pending or sleeping: the earliest moment at which it may be claimed; null: only an event wakes it.",
        ),
        column("waiting_for", ARRAY(Text()), "Names of the signals that it waits for."),
        column("worker_id", BigInteger(), "The worker that holds its lease."),
        column("claim", BigInteger(), "The number of the claim, of that worker, that took it."),
        column(
            "epoch",
            Integer(),
            "Grows at every claim: the fencing token of its lease.",
            null=False,
            default="0",
        ),
        column("mailbox", BigInteger(), "Signals delivered to it so far.", null=False, default="0"),
        column(
            "cancel_requested",
            Boolean(),
            "Whether somebody asked to cancel it.",
            null=False,
            default="false",
        ),
        column(
            "unique_key",
            LargeBinary(),
            "Digest of name and tags of a live workflow that was dispatched as unique.",
        ),
        column(
            "pause_requested",
            Boolean(),
            "Whether somebody asked to pause it: it becomes paused when its worker gives it up.",
            null=False,
            default="false",
        ),
        column(
            "awaits_children",
            Boolean(),
            "Sleeping: whether the end of a child wakes it.",
            null=False,
            default="false",
        ),
        column(
            "waiters",
            ARRAY(UUID()),
            "Workflows that are told of its end though they are not its parent: they found it when they dispatched a "
            "unique one.",
        ),
        column("last_worker", BigInteger(), "The worker that may still have it in memory while it sleeps."),
        column("reset", ARRAY(Text()), "Failed: locations of the steps that a retry runs again."),
        column(
            "fork_before",
            Text(collation="C"),
            "Failed after the code had gone on from the failure: it cannot be retried, only forked before this "
            "location.",
        ),
        column("freed_key", LargeBinary(), "Failed: the unique key that it held, for its retry."),
        column(
            "suspicions",
            ARRAY(BigInteger()),
            "Workers that died, or seemed to, while their process held this workflow, and it has recorded no progress "
            "since. Null: none.",
        ),
        column(
            "crashes",
            ARRAY(BigInteger()),
            "Those of them whose process held nothing else, as far as they have not been counted as attempts of "
            "activities.",
        ),
        column(
            "presumed",
            BigInteger(),
            "A worker whose lease ran out while its process held nothing else: counted if another such death follows.",
        ),
        column("suspected_at", TIME, "When the last of these deaths was noticed."),
        column(
            "created_at",
            TIME,
            "When the workflow was dispatched; null: not entered yet (see chores).",
            default="now()",
        ),
        column(
            "error_type",
            Text(),
            "Failed: the type of the error, at most 200 characters; else that of its last failure, if any.",
        ),
        column("failed_at", TIME, "Failed: when; else when it failed last, if it has."),
        column("deadline", TIME, "When it is cancelled, if it has not ended; null: never, or that has been done."),
        column(
            "timed_out",
            Double(),
            "Its deadline has passed, and it was cancelled for that: the seconds that it had. When the cancellation "
            "leaves it, it fails.",
        ),
        Index("runs_deadline", "deadline", postgresql_where=text("deadline IS NOT NULL")),
        Index(
            "runs_claimable",
            "queue",
            "name",
            text("priority DESC"),
            "wake_at",
            postgresql_where=text("status IN ('pending', 'sleeping') AND wake_at IS NOT NULL"),
        ),
        Index("runs_rewound", "queue", "wake_at", postgresql_where=text("right(name, 1) = chr(31)")),
        Index("runs_suspected", "queue", "name", postgresql_where=text("suspicions IS NOT NULL")),
        Index("runs_owned", "worker_id", "claim", postgresql_where=text("status = 'running'")),
        *_indexes_for_lists(),
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
        "ends",
        metadata,
        column("workflow_id", UUID(), "The workflow.", null=False),
        column("name", Text(), "Its name.", null=False),
        column("status", Text(), "completed or cancelled.", null=False),
        column("queue", Text(), "The queue that it was in at its end; null: not known."),
        column("priority", Integer(), "Its priority at its end; null: not known."),
        column("created_at", TIME, "When it was dispatched.", null=False),
        column("ended_at", TIME, "When it ended.", null=False),
        column("unique_key", LargeBinary(), "Digest of name and tags, if it was unique at its end."),
        column("waiters", ARRAY(UUID()), "Workflows that were told of its end though they are not its parent."),
        column("epoch", Integer(), "Its last epoch, from 2^24 on; null: below."),
        PrimaryKeyConstraint("ended_at", "workflow_id"),
        Index("ends_name", "name", "ended_at", "workflow_id"),
        Index("ends_cancelled", *_PLACE, postgresql_where=text("status = 'cancelled'")),
        Index("ends_name_cancelled", "name", *_PLACE, postgresql_where=text("status = 'cancelled'")),
        Index("ends_queue", "queue", *_PLACE, postgresql_where=text("queue <> 'default'")),
        comment="One row for each workflow that is completed or cancelled, for lists: inserted as it ends, by a "
        "trigger on runs, and never changed. Gone with the workflow, or when it is to go on after all.",
    )
    add_keeping(metadata)
    Table(
        "events",
        metadata,
        *history_columns(),
        comment="Active history: one row for each step that a replay reads.",
    )
    Table(
        "forgotten_events",
        metadata,
        *history_columns(),
        column("forgotten_at", TIME, "When the row left active history.", null=False, default="now()"),
        column(
            "rewind",
            Integer(),
            "The rewind that undid the step, counted from 1; 0: none did.",
            key=True,
            default="0",
        ),
        comment="Forgotten history: rows of finished loop turns, and of what a rewind has undone, kept for people to "
        "read.",
    )
    Table(
        "signals",
        metadata,
        column("id", UUID(), "Made by whoever sends it: sent twice is sent once.", key=True),
        column("workflow_id", UUID(), "The workflow that receives it.", null=False),
        column("name", Text(), "The signal's type.", null=False),
        column("body", JSON(), "Its fields.", null=False),
        Column(
            "arrival",
            BigInteger(),
            Identity(always=True),
            nullable=False,
            comment="The order in which signals were inserted.",
        ),
        column("number", BigInteger(), "Its place in the receiver's mailbox; null until it is delivered."),
        column("created_at", TIME, "When it was sent.", null=False, default="now()"),
        column("consumed_at", TIME, "When a listen took it."),
        column("location", Text(collation="C"), "Where that listen stands."),
        column(
            "dropped_at",
            TIME,
            "When the receiver had ended without taking it, when it was dropped by a person, or (see problem) set "
            "aside.",
        ),
        column("sender_id", UUID(), "The workflow that sent it, if one did."),
        column("encoding", Text(), "Reserved for payload codecs; null: plain JSON."),
        column("problem", Text(), "Why it was set aside: its body does not fit the type."),
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
        column("workflow_id", UUID(), "The workflow that something is asked of.", null=False),
        column(
            "kind",
            Text(),
            "cancel, or child: a child of it has ended.",
            null=False,
        ),
        column("created_at", TIME, "When it was made.", null=False, default="now()"),
        comment="What is asked of workflows but for signals: inserted without a lock on them, removed when delivered.",
    )
    Table(
        "chores",
        metadata,
        column(
            "name",
            Text(),
            "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old; ends: "
            "enter what ended before schema 0017, once (the row goes when that is done); finders: enter who found "
            "unique workflows before schema 0020, likewise; retention: remove workflows that were kept long enough.",
            key=True,
        ),
        column("holder", UUID(), "Who does it, or did it last: a number that a worker draws at its start."),
        column("held_until", TIME, "Until when nobody else does it; null: anybody may."),
        column("next_at", TIME, "When it is due.", null=False, default="now()"),
        column("place", BigInteger(), "How far it has got.", null=False, default="0"),
        comment="What one worker at a time does for all, by a lease on the database's clock.",
    )
    Table(
        "audit",
        metadata,
        Column("id", BigInteger(), Identity(always=True), primary_key=True, comment="The order in which it was done."),
        column("at", TIME, "When: the transaction's time.", null=False, default="now()"),
        column("actor", Text(), "Who, as was said; the database's role if nothing was.", null=False),
        column("role", Text(), "The database's role that did it, whatever was said.", null=False),
        column(
            "operation",
            Text(),
            "What: cancel, pause, resume, retry, rewind, terminate, update, wake, fork, prune, redeliver or drop "
            "(a signal), retention.",
            null=False,
        ),
        column("workflow_id", UUID(), "On which workflow; of a signal: the one that it was sent to."),
        column(
            "subject",
            Text(),
            "On what, where that is no workflow: the id of a signal, the name that retention was set for.",
        ),
        column("reason", Text(), "Why, as was said."),
        column("details", JSONB(), "What else there is to know of it, such as the id of a fork."),
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
        column("name", Text(), "The message's type.", null=False),
        column("tags", JSONB(), "What subscribers choose by.", null=False, default="'{}'::jsonb"),
        column("body", JSON(), "Its fields.", null=False),
        column("workflow_id", UUID(), "The workflow that published it."),
        column("sent_at", TIME, "When it was sent.", null=False, default="now()"),
        column(
            "place",
            BigInteger(),
            "Of two messages of a workflow the later one has the higher: the epoch, and a number of the worker's. "
            "Null: not known.",
        ),
        Index("messages_name", "name", "id"),
        prefixes=["UNLOGGED"],
        comment="Messages of the last while, for large ones and for late subscribers. A server's crash empties it.",
    )
    add_worker_tables(metadata)
    Table(
        "roles",
        metadata,
        column("role", Text(), "The role's name.", key=True),
        column("kind", Text(), "What it is: worker, reader, operator or sender.", key=True),
        column("payloads", Boolean(), "Of a reader: whether it sees payloads.", null=False, default="false"),
        column("granted_at", TIME, "When it was granted this.", null=False, default="now()"),
        comment="The roles that `pgflow db roles` has granted rights: migrations give them what they add.",
    )
    Table(
        "schema_info",
        metadata,
        column("version", Integer(), "The version of this schema.", key=True),
        column(
            "compatible_from",
            Integer(),
            "The oldest version of the code that can work on it.",
            null=False,
        ),
        comment="One row: which code this schema goes with.",
    )
    return metadata
