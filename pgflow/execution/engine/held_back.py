"""What history holds and the code has not reached yet, because it is executing what a later edit has inserted before
it.

An old run executes an insertion when it reaches it (`ctx.v(n)`). Meanwhile what was recorded later must not reach the
code: a cancellation, a deadline that has passed, the result that decided a race. In unchanged code this never happens:
a step with a place in the order of completion has been called before anything later is delivered.

    recorded, and all that stands before it was called    delivered, as always
    recorded, something before it was not yet called      waits while a live step is under way that the missing one
                                                          stands behind
    live, while that is so                                delivered at once; its row says after which place
                                                          (`turn_seq`), so that the next replay delivers it there
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from heapq import heapify, heappop
from typing import Any, ClassVar, Protocol

from pgflow.history.cursor import Cursor, named
from pgflow.history.events import Event
from pgflow.history.location import display
from pgflow.model.rows import EventRow
from pgflow.observe.log_records import Fields

log = logging.getLogger("pgflow.execution")


class LiveStep(Protocol):
    """A step that is under way. `Step` says what each of these is."""

    kind: ClassVar[str]
    is_container: ClassVar[bool]
    name: str
    version: int
    finished: bool
    wake_at: datetime | None
    event: Event | None

    @property
    def scope(self) -> OpenBody: ...
    @property
    def has_ended_row(self) -> bool: ...
    @property
    def future(self) -> asyncio.Future[Any] | None: ...


class OpenBody(Protocol):
    """A body of code that has not ended. `Scope` says what each of these is."""

    location: str

    @property
    def parent(self) -> OpenBody | None: ...
    @property
    def turn(self) -> OpenBody | None: ...
    @property
    def cursor(self) -> Cursor: ...
    @property
    def children(self) -> Collection[OpenBody]: ...
    def all_unfinished(self) -> Sequence[LiveStep]: ...


def not_reached(root: OpenBody, events: Iterable[Event]) -> list[Event]:
    """Those of these rows that no code has reached: what is left of each open body, and everything below that."""
    left: set[str] = set()
    waiting: list[OpenBody] = [root]
    while waiting:
        scope = waiting.pop()
        left.update(event.location for event in scope.cursor.remaining())
        waiting.extend(scope.children)
    if not left:
        return []
    return [event for event in events if not left.isdisjoint(with_ancestors(event.location))]


def with_ancestors(location: str) -> Iterable[str]:
    """A stored location and all above it."""
    while location:
        yield location
        location = location.rpartition(",")[0]


class UncalledRows:
    """The rows with a place in the order of completion whose steps have not been called.

    Args:
        root: the workflow's body, at rest.
        events: all of its rows.
    """

    __slots__ = ("_last", "_places", "_root", "_rows")

    def __init__(self, root: OpenBody, events: Iterable[Event]) -> None:
        self._root = root
        rows = [event for event in not_reached(root, events) if event.seq is not None]
        self._rows = {event.location: event for event in rows}
        self._places = [(event.seq, event.location) for event in rows if event.seq is not None]
        heapify(self._places)
        self._last = max((event.at for event in rows if event.turn_seq is None), default=None)
        """When the last of them was recorded, not counting what arrived while others were held back."""

    def called(self, location: str) -> None:
        """Note that the code has called the step of a row."""
        self._rows.pop(location, None)

    def passed_over(self, location: str) -> None:
        """Note that the code has passed a row, and everything below it, without a step (`removed`)."""
        below = location + ","
        for other in [other for other in self._rows if other == location or other.startswith(below)]:
            del self._rows[other]

    def resumed(self, loop: str, turn: str) -> None:
        """Note that a loop goes on with a turn: no code will reach those before it, though their rows may still be
        there.
        """
        below, kept = loop + ",", turn + ","
        for other in [other for other in self._rows if other.startswith(below) and not other.startswith(kept)]:
            del self._rows[other]

    def first(self) -> Event | None:
        """The row whose place in the order comes first."""
        while self._places:
            row = self._rows.get(self._places[0][1])
            if row is not None:
                return row
            heappop(self._places)
        return None

    def awaits_live_step(self, row: Event, late: Collection[LiveStep]) -> bool:
        """Whether a live step is under way that the code may have to wait for before it reaches a row."""
        return any(True for _ in self.live_steps(row, late))

    def live_steps(self, row: Event, late: Collection[LiveStep]) -> Iterator[LiveStep]:
        """The live steps under way that the code may have to wait for before it reaches a row.

        A step that was already pending while the old code went on is not one: that code did so without its result.

        Args:
            late: steps that have ended and have no place in the order yet.
        """
        for step in self._body_before(row).all_unfinished():
            if (
                not (step.is_container or step.has_ended_row)
                and step.future is not None
                and (not step.finished or step in late)
                and not self._was_passed_by(step, row)
            ):
                yield step

    def _was_passed_by(self, step: LiveStep, row: Event) -> bool:
        """Whether the row of a pending step does not belong to an insertion, and is older than what the old code has
        recorded.
        """
        event, last = step.event, self._last
        return event is not None and last is not None and event.version <= row.version and event.at <= last

    def insertion(self, row: Event, waiting: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
        """The first of the recorded results that wait which belongs to an insertion before a row and does not itself
        say where it belongs.
        """
        body = self._body_before(row)
        mine = [
            entry
            for entry in waiting
            if getattr(entry[3], "version", 0) > row.version and _is_within(entry[3].scope, body)
        ]
        return min(mine, default=None, key=lambda entry: entry[:3])

    def ends_insertion(self, row: Event, steps: Iterable[LiveStep]) -> bool:
        """Whether the end of an insertion that stands before a row is among steps whose live results are on their
        way.
        """
        body = self._body_before(row)
        return any(step.version > row.version and _is_within(step.scope, body) for step in steps)

    def _body_before(self, row: Event) -> OpenBody:
        """The innermost open body around a row."""
        body = self._root
        around = set(with_ancestors(row.location))
        while True:
            inner = next((child for child in body.children if child.location in around), None)
            if inner is None:
                return body
            body = inner


def _is_within(scope: OpenBody | None, body: OpenBody) -> bool:
    while scope is not None and scope is not body:
        scope = scope.parent
    return scope is body


def tell_what_holds_back(label: str, fields: Fields, uncalled: UncalledRows | None, late: Collection[LiveStep]) -> None:
    """Log for a run that goes to sleep which insertion keeps it from what history holds, unless a deadline ends that.

    Somebody may be about to send what it waits for. But if the workflow's own code would do that later on, it waits for
    ever, which cannot be known here; and a cancellation does not reach it either.
    """
    row = uncalled.first() if uncalled is not None else None
    if uncalled is None or row is None:
        return
    steps = list(uncalled.live_steps(row, late))
    if not steps or any(step.wake_at is not None for step in steps):
        return
    step = steps[0]
    removed = f'removed("{step.kind}", "{step.name}")' if step.name else f'removed("{step.kind}")'
    log.warning(
        "%s: %s has been inserted before what history holds, from %s at %s on, and waits. Until it ends neither that "
        "nor a cancellation reaches the code. If what it waits for is done by the workflow itself after that, it waits "
        "for ever: put `await ctx.v(%s).%s` in its place.",
        label,
        step,
        named(row.kind, row.name),
        display(row.location),
        step.version,
        removed,
        extra=fields,
    )


def place_of(event: Event) -> tuple[int, int, int]:
    """Where a recorded result stands in the order: at its own place, or right after another place, among the results
    delivered there.
    """
    seq = event.seq or 0
    if event.turn_seq is None or event.turn_state is not None or event.turn_seq >= seq:
        return seq, 0, 0
    return event.turn_seq, 2, seq


def ahead(row: EventRow, after: int | None, scope: OpenBody) -> EventRow:
    """A row that says after which place its result is delivered, if that is not its own place.

    In the body of a turn that column is the turn's: of a result there the next replay knows by its version that it
    comes first.
    """
    return row if after is None or scope.turn is scope else row._replace(turn_seq=after)
