"""What execution asks of the world, in plain data: rows to write, runs to claim, loops to advance.

Execution decides *what* becomes durable and never sees SQL; the store decides *how*. The objects here are all that
crosses between the two. Times are the database's; durations are seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from pgflow.definitions.calls import Dispatch, Sending, Standing
from pgflow.history.events import Event

CONFIRM = timedelta(seconds=1)
"""How long after the death of a process was noticed it counts as certain: a process that lives, and has only lost its
connections, has come back by then."""


class EventRow(NamedTuple):
    """One row of history to write. Payloads are JSON text.

    A row is keyed by its workflow and location: an ended row replaces a pending one, never another ended one.
    `wake_at` is a deadline, as database time.
    """

    location: str
    iteration: int
    seq: int | None
    version: int
    kind: str
    name: str
    status: str
    attempts: int
    input: str | None
    output: str | None
    error: str | None
    wake_at: datetime | None
    turn_state: str | None
    turn_now: datetime | None
    loop_progress: int | None
    loop_state: str | None
    turn_seq: int | None = None


class Signal(NamedTuple):
    """One signal in a workflow's mailbox, delivered and not consumed. `body` is JSON text."""

    id: UUID
    number: int
    name: str
    body: str


class Message(NamedTuple):
    """One message to send. `tags` and `body` are JSON text; of two messages of a workflow the later one has the higher
    `place`.
    """

    workflow_id: UUID
    name: str
    tags: str
    body: str
    place: int = 0


@dataclass(frozen=True, slots=True)
class Suspended:
    """The workflow sleeps: its lease ends with this write.

    `wake_at` is when it may be claimed again; None: an event wakes it.
    `waiting_for` names the signals that wake it; `awaits_children`: so does the end of a child.
    `mailbox` is the last place in the mailbox that the run had seen: if the row knows of a later one (a signal, the end
    of a child), or of a request to cancel, the workflow is pending at once instead of sleeping; if it is to be
    paused, it is paused.
    """

    wake_at: datetime | None
    waiting_for: tuple[str, ...] = ()
    mailbox: int = 0
    awaits_children: bool = False


@dataclass(frozen=True, slots=True)
class Completed:
    """The workflow returned: its output is stored, its run row goes."""

    output: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The workflow ended with an error (JSON of class, message, traceback): its run row stays, as `failed`.

    `reset` are the locations of the steps that a retry runs again. `fork_before`, where the code had gone on from the
    failure, is the location before which to fork it: a retry is refused then.
    """

    error: str
    reset: tuple[str, ...] = ()
    fork_before: str | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancellation left the workflow: it has ended, its run row goes."""


@dataclass(frozen=True, slots=True)
class Released:
    """The worker hands the workflow back unfinished: paused if that was asked for, else claimable at
    once by another.
    """


Outcome = Suspended | Completed | Failed | Cancelled | Released


class RunKey(NamedTuple):
    """A run at one epoch: what each of its writes is fenced by.

    The id is text, as it travels to the database, so that it is made once a claim and not once a write.
    """

    workflow: str
    epoch: int

    @property
    def workflow_id(self) -> UUID:
        """The workflow's id."""
        return UUID(self.workflow)


@dataclass(slots=True)
class Beside:
    """What a write changes beside history and the end of its run; most change nothing."""

    consumed: list[tuple[UUID, str]] = field(default_factory=list)
    """Signals that listens have taken: their ids, and where the listens stand."""
    aside: list[tuple[UUID, str]] = field(default_factory=list)
    """Signals whose bodies do not fit the types that are listened for: their ids, and why. The texts are ASCII."""
    state: str | None = None
    """What activities keep in `ActivityContext.state`, all of it, if it changes: a JSON object."""
    tags: str | None = None
    """All of the workflow's tags, if they change: a JSON object."""
    cancels: int | None = None
    """The place in the order of completion at which the request to cancel is delivered, if it is, with this write; the
    request goes on to the children that are not detached."""
    suspicion: str = ""
    """What becomes of deaths that the run is suspected of: "lifted" by progress, "counted" as attempts, or nothing."""
    messages: list[Message] = field(default_factory=list)
    """Not for the journal: the run has them sent once this is committed."""


@dataclass(slots=True)
class Write:
    """What one run asks to be made durable in one transaction, fenced by its epoch.

    The writes of one run become durable in the order in which they were handed over; several of them may share a
    transaction. Exactly one of the callbacks is called, once, on the worker's event loop, never from within
    `Journal.write` itself. Both get `self`.
    """

    run: RunKey
    rows: list[EventRow]
    outcome: Outcome | None
    on_commit: Callable[[Write, datetime], None]
    """Called after the commit with the transaction's time."""
    on_refused: Callable[[Write, BaseException], None]
    """Called with `LeaseLost`, or with what the database said of this run's rows."""
    beside: Beside | None = None


@dataclass(slots=True)
class Advance:
    """The forgetting of a loop's finished turns, as one serializable transaction (design, section 4).

    `turns` is the number of ended turns: rows of turns below it leave active history. At the break, `output` is the
    loop's output and `seq` its place in the order of completion; before it both are None. `started` is the place after
    which the turn that follows has started.
    """

    workflow_id: UUID
    epoch: int
    location: str
    turns: int
    state: str | None
    keep: int
    output: str | None
    seq: int | None
    on_commit: Callable[[Advance, datetime], None]
    on_refused: Callable[[Advance, BaseException], None]
    started: int | None = None
    moved: int = 0
    """Rows that left active history; filled in by the store before `on_commit`."""

    @property
    def breaks(self) -> bool:
        """Whether this is the advancement that ends the loop."""
        return self.seq is not None


@dataclass(slots=True)
class Crossing:
    """What one workflow does to another, in a transaction of its own, fenced by its epoch (design, section 5, rule 7).

    The command's id is derived from where it stands, so that doing it twice is doing it once. Exactly one of the
    callbacks is called, once, on the worker's event loop.
    """

    workflow_id: UUID
    epoch: int
    command: Sending | Dispatch
    on_done: Callable[[Crossing, Any], None]
    """Called after the commit with the `Sent` or the `Dispatched` that answers the command."""
    on_refused: Callable[[Crossing, BaseException], None]
    """Called with `LeaseLost`, or with what the database said of the command."""


@dataclass(slots=True)
class Inquiry:
    """A question how workflows have ended."""

    ids: Sequence[UUID]
    on_answer: Callable[[Inquiry, Mapping[UUID, Standing | None]], None]
    """Called once with those that have ended, and (None) those that there are not; the others go on."""
    wait: float = 0.0
    """Seconds before it is put, so that one answer tells of all that ends meanwhile."""


@dataclass(slots=True)
class Claimed:
    """A workflow that this worker holds the lease of, with all that a replay needs."""

    workflow_id: UUID
    name: str
    queue: str
    epoch: int
    input: str
    tags: dict[str, Any]
    """The tags given at dispatch, whatever activities have made of them since."""
    created_at: datetime
    parent_id: UUID | None
    seed: UUID
    mailbox: int
    cancel_requested: bool
    now: datetime
    """The database's time at the claim."""
    events: list[Event] = field(default_factory=list)
    """Active history, ordered by location; empty when the workflow is `warm`."""
    signals: list[Signal] = field(default_factory=list)
    """The mailbox: what has been delivered and not consumed, in order."""
    state: str | None = None
    """What its activities keep in `ActivityContext.state`: a JSON object."""
    tags_now: dict[str, Any] | None = None
    """The tags that it has now, if activities have changed them."""
    warm: bool = False
    """This worker had it last and gave it up by itself: history and input were not read again."""
    suspicions: int = 0
    """How many deaths of processes it is suspected of: they held it, and it has made no progress since."""
    crashes: Sequence[int] = ()
    """The workers among those that died while they held nothing else, and were not counted as attempts
    of activities.
    """
    suspected_at: datetime | None = None
    """When the last of these deaths was noticed."""
    cancellations: Sequence[int] = ()
    """Places in the order of completion at which requests to cancel were delivered."""
    run: RunKey = field(init=False)
    """What fences the writes under this claim."""

    def __post_init__(self) -> None:
        self.run = RunKey(str(self.workflow_id), self.epoch)


@dataclass(slots=True)
class Arrived:
    """News for a run that is in memory: what has been delivered to it, and what is asked of it."""

    workflow_id: UUID
    epoch: int
    after: int
    """The last place in the mailbox before these news."""
    mailbox: int
    """The last place in the mailbox that is taken now."""
    cancel: bool = False
    pause: bool = False
    signals: list[Signal] = field(default_factory=list)
    """What is new in the mailbox, in order; ends of children take a place in it and are not among these."""
    looked_at: float = math.inf
    """When the database was asked, on this process's monotonic clock: what was committed here since may
    not be in it.
    """


class Journal(Protocol):
    """Where runs hand over what must be durable (group commit)."""

    def write(self, write: Write) -> None:
        """Take one write; it is in the next transaction, or in a later one when its run's row is busy."""
        ...


class Transaction(Protocol):
    """One transaction that commits an activity's result together with the activity's own statements."""

    @property
    def connection(self) -> Any:
        """What the activity works with."""
        ...

    async def commit(self, write: Write) -> datetime:
        """Write what belongs to the result and make all of it durable: the time of that. If this raises, nothing is."""
        ...

    async def rollback(self) -> None:
        """Undo everything."""
        ...

    async def abort(self, work: Future[Any]) -> None:
        """Undo everything although `work`, in its thread, is still using the connection."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...


class Transactions(Protocol):
    """Where transactional activities get their transactions."""

    async def begin(self, *, blocking: bool, timeout: float | None) -> Transaction:
        """Begin one, for a thread or not, for an activity that may take so many seconds."""
        ...


class Loops(Protocol):
    """Where runs hand over the forgetting of finished turns."""

    def advance(self, advance: Advance) -> None:
        """Take one advancement; the caller has made sure that all rows of the ended turns are committed."""
        ...


class Crossings(Protocol):
    """Where runs hand over what they do to other workflows, and ask how those have ended."""

    def cross(self, crossing: Crossing) -> None:
        """Take one crossing; those of one workflow are made in the order in which they are handed over."""
        ...

    def ask(self, inquiry: Inquiry) -> None:
        """Take one question; it is put to the database after this call."""
        ...
