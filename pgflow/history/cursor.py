"""The cursor: walks the rows of one branch in step with the code, and says which row each step that is called meets.

nothing               the step is new
its own row           the step is replayed
a row of higher version the code is older than history: diverged
a row of lower version  the step is an insertion before that row
any other row         diverged; nothing is written
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from pgflow.errors import HistoryDiverged
from pgflow.history.events import KIND_REMOVED, KIND_VERSION_CHECK, NAMELESS, Event
from pgflow.history.location import (
    NUMBERS,
    Coordinate,
    between,
    decode_coordinate,
    display,
    encode_coordinate,
    encode_number,
)


class Placement(NamedTuple):
    """Where a step stands, and the row that it meets there (None: a new one)."""

    location: str
    event: Event | None


_new_step: Callable[[type[Placement], tuple[str, Event | None]], Placement] = tuple.__new__
"""`Placement(...)` without the overhead of its `__new__`."""


class Cursor:
    """The position of the code in the history of one branch.

    Args:
        parent: stored location of the branch, "" for the root.
        events: the rows that stand directly on it, in execution order.
    """

    __slots__ = ("_at", "_events", "_prefix", "_previous", "exhausted")

    def __init__(self, parent: str, events: list[Event]) -> None:
        self._prefix = parent + "," if parent else ""
        self._events = events
        self._at = 0
        self.exhausted = not events
        """Whether every row has been passed."""
        self._previous: Coordinate | Event = ()
        """The location of the last step; that of a row that was passed is decoded only when a new location has to be
        made after it.
        """

    @property
    def next_row(self) -> Event | None:
        """The next row that the code will meet."""
        return None if self.exhausted else self._events[self._at]

    def remaining(self) -> list[Event]:
        """The rows that the code has not reached; if it has ended, they are latent history."""
        return self._events[self._at :]

    def meets(self, kind: str, name: str, version: int) -> Event | None:
        """The row that a step would meet as its own; None if the step is new or an insertion, or would diverge. The
        cursor does not move.
        """
        if self.exhausted:
            return None
        event = self._events[self._at]
        own = event.version == version and event.kind == kind and (event.name == name or kind in NAMELESS)
        return event if own else None

    def step(self, kind: str, name: str, version: int) -> Placement:
        """Place a step that the code calls.

        Raises:
            HistoryDiverged: history holds another step here; the cursor stays where it is.
        """
        if self.exhausted:
            return self._new()
        at = self._at
        event = self._events[at]
        # The code of `meets` repeated, since a long replay passes here for every row.
        if event.version == version and event.kind == kind and (event.name == name or kind in NAMELESS):
            self._previous = event
            self._at = at = at + 1
            if at == len(self._events):
                self.exhausted = True
            return _new_step(Placement, (event.location, event))
        if event.version < version:
            return self._insertion(event)
        raise self._diverged(f"{named(kind, name)} of version {version}", event, event.version > version)

    def check_version(self, version: int) -> tuple[int, str | None]:
        """The answer to a version check, and where to record it (None: nothing is written)."""
        if self.exhausted:
            return version, self._new().location
        event = self._events[self._at]
        if event.kind == KIND_VERSION_CHECK:
            self.pass_by(event)
            return event.version, None
        return (self._older_than(version) or event).version, None

    def removed(self, kind: str, name: str, version: int = 1) -> Placement | None:
        """Pass the step that used to stand here, or its mark; a new location at the end of history.

        None where history goes on with a step of a lower version: the removed one was an insertion, and this run was
        never there.

        Raises:
            HistoryDiverged: history holds another step here.
        """
        if self.exhausted:
            return self._new()
        event = self._events[self._at]
        same_name = event.name == name or kind in NAMELESS
        if same_name and (event.kind == kind or _marks(event, kind)):
            self.pass_by(event)
            return Placement(event.location, event)
        if self._older_than(version) is not None:
            return None
        raise self._diverged(f"{named(kind, name)}, which the code says was removed", event)

    def _older_than(self, version: int) -> Event | None:
        """The first of the rows ahead that is older than a version.

        A check, or what stands for a removed insertion, writes nothing before an older row. Steps that are inserted
        right after it later must not change its answer on the next replay: they are not older, so they are skipped.
        """
        left = islice(self._events, self._at, None)
        return next((event for event in left if event.version < version), None)

    def _new(self) -> Placement:
        previous = self._previous
        if isinstance(previous, Event):
            previous = self._coordinate(previous)
        number = previous[0] + 1 if previous else 1
        self._previous = (number,)
        stored = NUMBERS[number] if number < len(NUMBERS) else encode_number(number)
        return _new_step(Placement, (self._prefix + stored, None))

    def _insertion(self, event: Event) -> Placement:
        self._previous = between(self._last(), self._coordinate(event))
        return Placement(self._prefix + encode_coordinate(self._previous), None)

    def pass_by(self, event: Event) -> None:
        """Move on past the next row, which is the step's own (`meets`) or stands in its place."""
        self._previous = event
        self._at += 1
        self.exhausted = self._at == len(self._events)

    def _last(self) -> Coordinate:
        previous = self._previous
        return self._coordinate(previous) if isinstance(previous, Event) else previous

    def _coordinate(self, event: Event) -> Coordinate:
        return decode_coordinate(event.location[len(self._prefix) :])

    def _diverged(self, expected: str, event: Event, newer: bool = False) -> HistoryDiverged:
        found = f"{named(event.kind, event.name)} of version {event.version}"
        where = display(event.location)
        return HistoryDiverged(
            f"history diverged at {where}: the code expected {expected}, history holds {found}. Nothing was written. "
            + ("It was recorded by newer code: deploy that again. Or put " if newer else "Put ")
            + "the recorded step back, stand `ctx.removed(...)` in its place, insert new steps with "
            "`ctx.v(n)`, or decide with `ctx.check_version(n)`; then retry the workflow, or fork it before "
            f"{where}.",
            location=where,
            expected=expected,
            found=found,
        )


def named(kind: str, name: str) -> str:
    """A step as messages name it."""
    return f'{kind} "{name}"' if name else kind


def _marks(event: Event, kind: str) -> bool:
    """Whether the row stands for a removed step of that kind. Its input may have been written by hand,
    so it is read.
    """
    if event.kind != KIND_REMOVED or event.input is None:
        return False
    try:
        mark = json.loads(event.input)
    except ValueError:
        return False
    return isinstance(mark, dict) and mark.get("kind") == kind
