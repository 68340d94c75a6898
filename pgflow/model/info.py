"""What a client shows of workflows and their history, as plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """One workflow as it stood when it was read.

    Attributes:
        status: pending, running, sleeping, paused, completed, failed or cancelled.
        input: the arguments by name, as JSON values; output and error likewise.
        wake_at: when it may be claimed next, if a moment is set.
        waiting_for: names of the signals that it waits for.
        worker_id: the worker that runs it.
    """

    id: UUID
    name: str
    status: str
    queue: str | None
    priority: int | None
    tags: dict[str, Any]
    input: dict[str, Any]
    output: Any
    error: dict[str, Any] | None
    created_at: datetime
    completed_at: datetime | None
    wake_at: datetime | None
    waiting_for: list[str]
    worker_id: int | None
    parent_id: UUID | None


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The result of an operation on many workflows.

    Attributes:
        done: the ids of those for which it was done (with `dry_run`: would be).
        refused: for each of the others, why it was refused.
        more: whether there are more than the limit allowed: call it again.
    """

    done: list[UUID]
    refused: dict[UUID, str]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Rewound:
    """What a rewind has undone (with `dry_run`: would undo).

    Attributes:
        number: which rewind of the workflow it is, counted from 1.
        steps: rows of history that went to forgotten history.
        signals: signals that returned to the mailbox.
        children: children that had been started there and had not ended: they were left, or asked to cancel.
        recorded_by: workflows that had recorded its output: they keep it.
    """

    number: int
    steps: int
    signals: int
    children: list[UUID]
    recorded_by: list[UUID]


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One step of a workflow.

    Attributes:
        location: where it stands, in displayed form: {2, 10}.
        iteration: the turn of the innermost loop around it, from 0.
        status: pending, completed, failed, cancelled or abandoned.
        attempts: attempts of the activity that have ended.
        wake_at: the deadline that a pending step waits for.
        forgotten: whether it has left active history.
        rewind: the rewind that undid it, counted from 1; 0: none did.
    """

    location: str
    iteration: int
    version: int
    kind: str
    name: str
    status: str
    attempts: int
    input: Any
    output: Any
    error: dict[str, Any] | None
    created_at: datetime
    completed_at: datetime | None
    wake_at: datetime | None
    forgotten: bool
    rewind: int = 0


@dataclass(frozen=True, slots=True)
class DeadSignal:
    """A signal that was set aside because its body did not fit the type that was listened for.

    Attributes:
        workflow_id: the workflow that it was sent to, and workflow_name its name.
        name: the signal's type.
        body: its fields, as JSON values.
        problem: why they do not fit.
        created_at: when it was sent.
        set_aside_at: when it was set aside.
        sender_id: the workflow that sent it, if one did.
    """

    id: UUID
    workflow_id: UUID
    workflow_name: str | None
    name: str
    body: Any
    problem: str
    created_at: datetime
    set_aside_at: datetime
    sender_id: UUID | None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What an operator did.

    Attributes:
        id: its number: the later, the higher.
        actor: who, as was said; the database's role if nothing was.
        role: the database's role that did it.
        operation: cancel, pause, resume, retry, terminate, fork, prune, redeliver, drop or retention.
        workflow_id: on which workflow; of a signal the one that it was sent to.
        subject: on what, where that is no workflow: the id of a signal, the name that retention was set for.
        reason: why, as was said.
        details: what else there is to know: a fork's `new_id`, `before` and `queue`; a signal's `name`.
    """

    id: int
    at: datetime
    actor: str
    role: str
    operation: str
    workflow_id: UUID | None
    subject: str | None
    reason: str | None
    details: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """What is said of how long workflows of a name are kept once they have ended.

    Attributes:
        name: the workflows' name; `*`: all that have nothing of their own.
        keep: how long after they have completed or were cancelled: a timedelta, or "forever"; None: not said here.
        failed: likewise after they have failed.
        set_by: "operator", or "code": declared by workers that know it.
        changed_at: when it was said.
    """

    name: str
    keep: timedelta | str | None
    failed: timedelta | str | None
    set_by: str
    changed_at: datetime


class Pruned(int):
    """How many workflows were removed (with `dry_run`: would be).

    Attributes:
        kept: how many of those that match stay, by why: "awaited" (somebody may still await their output), or "busy"
            (somebody has them locked, or they have gone on, or gone).
    """

    kept: dict[str, int]

    def __new__(cls, removed: int, kept: Mapping[str, int] | None = None) -> Pruned:
        made = super().__new__(cls, removed)
        made.kept = dict(kept or {})
        return made


@dataclass(frozen=True, slots=True)
class Definition:
    """What workers of a build know of a workflow.

    Attributes:
        name: the workflow's name.
        queue: a queue that they serve.
        build: theirs; None: they say none.
        arguments: the JSON Schema of the workflow's arguments, an object of them by name.
    """

    name: str
    queue: str
    build: str | None
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker.

    Attributes:
        id: the number of its registration.
        host, pid: the machine and the process that it runs in.
        version: that of pgflow.
        build: that of the application; None: it says none.
        queues, names: the queues that it serves, and the workflows that it knows; None: of a version before.
        heartbeat_age: seconds since its last heartbeat, by the database's clock.
        alive: whether its lease is good.
        held: how many workflows it runs.
        concurrency: how many it runs at most.
    """

    id: int
    host: str
    pid: int
    version: str
    build: str | None
    queues: list[str]
    names: list[str] | None
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age: float
    alive: bool
    held: int
    concurrency: int | None


class Page(list[WorkflowInfo]):
    """One page of a list of workflows.

    Attributes:
        cursor: give it as `after` to get the next page; None: there is none.
        short: whether it has fewer than were asked for though there may be more: the time for one page was used up by
            workflows that do not fit, and the cursor goes on after them.
    """

    def __init__(
        self,
        workflows: Iterable[WorkflowInfo] = (),
        limit: int = 0,
        reached: tuple[datetime, UUID] | None = None,
    ) -> None:
        super().__init__(workflows)
        full = len(self) >= limit and len(self) > 0
        self.short = reached is not None and not full
        self.cursor = cursor_of((self[-1].created_at, self[-1].id) if full else reached)


class Count(int):
    """A number of workflows, which may go on.

    Attributes:
        cursor: to be given as `after` to count the rest; None: these are all.
        more: whether there may be more: the limit was reached, or the time for one count used up.
    """

    cursor: str | None
    more: bool

    def __new__(cls, number: int, reached: tuple[datetime, UUID] | None = None) -> Self:
        """So many, counted up to a place in the list."""
        made = super().__new__(cls, number)
        made.cursor = cursor_of(reached)
        made.more = reached is not None
        return made


def cursor_of(place: tuple[datetime, UUID] | None) -> str | None:
    """A place in a list, as a text."""
    return None if place is None else f"{place[0].isoformat()}/{place[1]}"
