"""What a run hands to the store, with the callbacks for when it is done or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflow.model.commands import Dispatch, Sending, Standing
from pgflow.model.outcomes import Outcome
from pgflow.model.rows import EventRow, Message, RunKey


@dataclass(slots=True)
class RunChanges:
    """What a write changes besides history and the end of its run; most change nothing."""

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
    """What happens to the deaths that the run is suspected of: "lifted" by progress, "counted" as attempts, or nothing.
    """
    messages: list[Message] = field(default_factory=list)
    """Not written by the journal: the run has them sent once this is committed."""


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
    run_changes: RunChanges | None = None


@dataclass(slots=True)
class Advance:
    """The forgetting of a loop's finished turns, as one serializable transaction (design, section 4).

    `turns` is the number of ended turns: rows of turns below it leave active history. At the break, `output` is the
    loop's output and `seq` its place in the order of completion; before it both are None. `started` is the place after
    which the turn that follows has started; at the end, the last place at which the body has caught a cancellation, or
    may have.
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
    location: str = ""
    """Where the step stands, in stored form; empty: not known."""


@dataclass(slots=True)
class Inquiry:
    """A question how workflows have ended."""

    ids: Sequence[UUID]
    on_answer: Callable[[Inquiry, Mapping[UUID, Standing | None]], None]
    """Called once with the workflows that have ended, and None for those that do not exist; the others have not ended.
    """
    wait: float = 0.0
    """Seconds to wait before asking, so that one answer covers all that ends until then."""
