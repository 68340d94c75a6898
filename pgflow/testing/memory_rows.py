"""The rows of the in-memory store: what the tables of the database hold, as far as execution can see.

Rows never change: a change puts another in their place, so that a copy of all is a copy of the dictionaries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import copy
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple, TypeVar
from uuid import UUID

from pgflow.definitions.tags import tag_set
from pgflow.history.events import STATUS_PENDING, Event
from pgflow.history.stored import StoredHistory
from pgflow.model.folding import folded
from pgflow.model.rows import EventRow

AnyTables = TypeVar("AnyTables", bound="Tables")

UniqueKey = tuple[str, frozenset[tuple[str, str]]]
"""A name, and tags as they are written: 1.0 and 1 find each other, but are not the same key."""

_EVENT = Event._make


class WorkflowRow(NamedTuple):
    """One workflow, whether it goes on or has ended. Payloads and tags are JSON text."""

    id: UUID
    name: str
    input: str
    tags: str
    seed: UUID
    created_at: datetime
    parent_id: UUID | None = None
    root_id: UUID | None = None
    detached: bool = False
    status: str | None = None
    """How it has ended; None while it goes on."""
    output: str | None = None
    error: str | None = None
    completed_at: datetime | None = None
    state: str | None = None
    tags_given: str | None = None
    """The tags given at dispatch, once activities have changed them."""
    cancellations: tuple[int, ...] = ()
    timeout: float | None = None


class RunRow(NamedTuple):
    """What there is of a workflow that may still go on: all but completed and cancelled ones have one."""

    workflow_id: UUID
    name: str
    queue: str
    priority: int
    status: str
    wake_at: datetime | None
    epoch: int = 0
    worker: int | None = None
    last_worker: int | None = None
    """The worker that may still have it in memory while it sleeps."""
    mailbox: int = 0
    """The last place in the mailbox that is taken."""
    waiting_for: tuple[str, ...] = ()
    awaits_children: bool = False
    cancel_requested: bool = False
    pause_requested: bool = False
    unique_key: UniqueKey | None = None
    freed_key: UniqueKey | None = None
    """Of a failed one: the key that it held."""
    waiters: tuple[UUID, ...] = ()
    """Workflows that get a notice of its end though they are not its parent."""
    reset: tuple[str, ...] = ()
    fork_before: str | None = None
    deadline: datetime | None = None
    timed_out: float | None = None
    """Its deadline has passed, and it was cancelled for that: the seconds that it had."""


class SignalRow(NamedTuple):
    """One signal, from its sending on. `body` is JSON text; `number` is its place in the mailbox, once delivered."""

    id: UUID
    workflow_id: UUID
    name: str
    body: str
    sender_id: UUID | None = None
    number: int | None = None
    consumed_at: datetime | None = None
    location: str | None = None
    """Where the listen stands that has taken it."""
    dropped_at: datetime | None = None
    problem: str | None = None
    """Why it was set aside."""

    @property
    def waiting(self) -> bool:
        """Whether it is in the mailbox: delivered, and neither taken nor dropped."""
        return self.number is not None and self.consumed_at is None and self.dropped_at is None


class Request(NamedTuple):
    """What is asked of a workflow and not delivered yet: "cancel", or "child", the end of one."""

    workflow_id: UUID
    kind: str


class RefusedValue(ValueError):
    """A value that the database would refuse."""


def written(old: Event | None, row: EventRow, now: datetime) -> Event | None:
    """The row of history after a write, as `folded` has it; None: the write changes nothing."""
    if old is None:
        return _EVENT((*row[:8], now, *row[8:], None))
    after = folded(old, row)
    if after is None:
        return None
    at = old.at if after.status == STATUS_PENDING else now
    return _EVENT((*after[:8], at, *after[8:], old.loop_seq))


def unique_key(name: str, tags: str) -> UniqueKey:
    """The key that a live workflow dispatched as unique holds."""
    return name, frozenset(
        (tag, format(value, "f") if isinstance(value, Decimal) else json.dumps(value))
        for tag, _, value in tag_set(tags)
    )


def check_row(row: EventRow) -> None:
    """Check that the database would take a row of history.

    Raises:
        RefusedValue: it would not.
    """
    for text in (row.location, row.kind, row.name, row.status):
        check_text(text)
    check_json(row.input, row.output, row.error, row.turn_state, row.loop_state)
    for number in (
        row.iteration,
        row.seq,
        row.version,
        row.attempts,
        row.loop_progress,
        row.turn_seq,
    ):
        if number is not None and (not isinstance(number, int) or not -(2**31) <= number < 2**31):
            raise RefusedValue(f"{number!r} is no integer of 32 bits")


def check_text(text: str) -> None:
    """Check that the database would take a text.

    Raises:
        RefusedValue: it would not.
    """
    if not text.isprintable() and ("\0" in text or "\x1f" in text or any("\ud800" <= c <= "\udfff" for c in text)):
        raise RefusedValue(f"{text!r} holds a character that cannot be stored")


def check_json(*texts: str | None) -> None:
    """Check that the database would take texts as JSON.

    Raises:
        RefusedValue: it would not.
    """
    for text in texts:
        if text is not None:
            check_text(text)
            try:
                _DECODER.decode(text)
            except RecursionError:
                pass  # deeper than Python reads, and not too deep for the database
            except ValueError as error:
                raise RefusedValue(f"{text[:100]!r} is no JSON: {error}") from error


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number in JSON")


_DECODER = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=_refused)
"""Reads what PostgreSQL does: numbers of any length, and no NaN."""


def in_mailbox(signals: Iterable[SignalRow], workflow_id: UUID, after: int = 0) -> list[SignalRow]:
    """What waits in a workflow's mailbox behind a place, in order."""
    found = [
        signal
        for signal in signals
        if signal.workflow_id == workflow_id and signal.waiting and signal.number is not None and signal.number > after
    ]
    return sorted(found, key=lambda signal: signal.number or 0)


class Tables:
    """All rows of one database in memory, and its clock.

    Args:
        now: The time at which it begins; it goes on by a millisecond a transaction of a run.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.workflows: dict[UUID, WorkflowRow] = {}
        self.runs: dict[UUID, RunRow] = {}
        self.events: dict[UUID, dict[str, Event]] = {}
        """Active history of each workflow, by location."""
        self.forgotten: dict[UUID, dict[str, Event]] = {}
        """Forgotten history of each workflow, by location."""
        self.signals: dict[UUID, SignalRow] = {}
        """In the order in which they were sent."""
        self.requests: list[Request] = []
        """In the order in which they were made."""

    def copied(self: AnyTables) -> AnyTables:
        """A copy that shares nothing that changes."""
        other = copy(self)
        other.workflows, other.runs, other.signals = (
            dict(self.workflows),
            dict(self.runs),
            dict(self.signals),
        )
        other.events = {id: dict(events) for id, events in self.events.items()}
        other.forgotten = {id: dict(events) for id, events in self.forgotten.items()}
        other.requests = list(self.requests)
        return other

    def history(self, workflow_id: UUID) -> list[Event]:
        """A workflow's active history, ordered by location."""
        events = self.events.get(workflow_id, {})
        return [events[location] for location in sorted(events)]

    def status(self, workflow_id: UUID) -> str:
        """How a workflow stands: completed, cancelled, or what its run says."""
        run = self.runs.get(workflow_id)
        return self.workflows[workflow_id].status or "unknown" if run is None else run.status

    def stored(self, workflow_id: UUID) -> StoredHistory:
        """A workflow with its active history, as an export would hold it."""
        workflow = self.workflows[workflow_id]
        return StoredHistory(
            workflow_id,
            workflow.name,
            self.status(workflow_id),
            workflow.input,
            json.loads(workflow.tags_given or workflow.tags),
            workflow.seed,
            workflow.created_at,
            workflow.parent_id,
            workflow.output,
            workflow.error,
            self.now,
            self.history(workflow_id),
            workflow.cancellations,
        )
