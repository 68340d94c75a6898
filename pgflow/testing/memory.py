"""One workflow as the database would hold it, in memory: what a test runs on when it has no database.

It keeps the rules that execution relies on: a row that has ended is not replaced, the rows of a loop's ended turns
leave active history, a signal is consumed with the row of the listen that took it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.history.events import STATUS_COMPLETED, STATUS_PENDING, Event
from pgflow.history.location import turns
from pgflow.history.stored import StoredHistory
from pgflow.ports import (
    Advance,
    Beside,
    Cancelled,
    Claimed,
    Completed,
    EventRow,
    Failed,
    Released,
    Signal,
    Suspended,
    Write,
)

_TICK = timedelta(milliseconds=1)
_KEPT = ("input", "turn_state", "turn_now", "turn_seq", "loop_progress", "loop_state", "loop_seq")
"""What a row keeps of its pending self where the later one says nothing."""


class Memory:
    """A workflow, its history and its mailbox.

    Parameters:
        id: the workflow's.
        name: of its code.
        input: the arguments, as JSON.
        tags: given at dispatch.
        signals: its mailbox, in order.
        now: the time at which it is dispatched; it goes on by a millisecond a transaction, and by whatever is waited
            for.
    """

    def __init__(
        self,
        id: UUID,
        name: str,
        input: str,
        tags: dict[str, Any],
        signals: Sequence[Signal],
        now: datetime,
    ) -> None:
        self.id = id
        self.name = name
        self.input = input
        self.tags = tags
        self.created_at = self.now = now
        self.status = "pending"
        self.wake_at: datetime | None = None
        self.output: str | None = None
        self.error: str | None = None
        self._tags_now: dict[str, Any] | None = None
        self._state: str | None = None
        self._mailbox = len(signals)
        self._signals = list(signals)
        self._epoch = 0
        self._events: dict[str, Event] = {}

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.status in ("completed", "failed", "cancelled")

    def claim(self) -> Claimed:
        """Take it, with all that a replay needs."""
        self._epoch += 1
        self.status = "running"
        self.now += _TICK
        return Claimed(
            self.id,
            self.name,
            "default",
            self._epoch,
            self.input,
            dict(self.tags),
            self.created_at,
            None,
            self.id,
            self._mailbox,
            False,
            self.now,
            self._history(),
            list(self._signals),
            self._state,
            self._tags_now,
        )

    def _change(self, beside: Beside) -> None:
        consumed = {id for id, _ in [*beside.consumed, *beside.aside]}
        self._signals = [signal for signal in self._signals if signal.id not in consumed]
        if beside.state is not None:
            self._state = beside.state
        if beside.tags is not None:
            self._tags_now = json.loads(beside.tags)

    def commit(self, write: Write) -> None:
        """Make one write durable."""
        self.now += _TICK
        for row in write.rows:
            self._put(row)
        if write.beside is not None:
            self._change(write.beside)
        outcome = write.outcome
        if isinstance(outcome, Suspended):
            self.status, self.wake_at = "sleeping", outcome.wake_at
        elif isinstance(outcome, Completed):
            self.status, self.output = "completed", outcome.output
        elif isinstance(outcome, Failed):
            self.status, self.error = "failed", outcome.error
        elif isinstance(outcome, Cancelled):
            self.status = "cancelled"
        elif isinstance(outcome, Released):
            self.status = "pending"

    def advance(self, advance: Advance) -> None:
        """Forget the ended turns of a loop."""
        self.now += _TICK
        row = self._events[advance.location]
        first, last = turns(advance.location, row.loop_progress or 0, advance.turns)
        for location in [location for location in self._events if first <= location < last]:
            del self._events[location]
            advance.moved += 1
        row = row._replace(loop_progress=advance.turns, loop_state=advance.state, loop_seq=advance.started)
        if advance.breaks:
            row = row._replace(status=STATUS_COMPLETED, seq=advance.seq, output=advance.output, at=self.now)
        self._events[advance.location] = row

    def stored(self) -> StoredHistory:
        """Its history, as an export would hold it."""
        return StoredHistory(
            self.id,
            self.name,
            self.status,
            self.input,
            self.tags,
            self.id,
            self.created_at,
            None,
            self.output,
            self.error,
            self.now,
            self._history(),
        )

    def _history(self) -> list[Event]:
        return [self._events[location] for location in sorted(self._events)]

    def _put(self, row: EventRow) -> None:
        old = self._events.get(row.location)
        if old is not None and old.status != STATUS_PENDING:
            return
        values = row._asdict()
        if old is not None:
            values |= {name: getattr(old, name) for name in _KEPT if values.get(name) is None}
        self._events[row.location] = Event(at=self.now, **values)
