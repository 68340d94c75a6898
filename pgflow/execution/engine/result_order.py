"""The order in which results reach the code: one at a time, by `seq`, the same live and on replay.

    recorded results, the lowest `seq` first  ->  live ones, strictly by `seq`, each after its commit

A result takes its place when it is finished, not when it is committed: a later one waits for it. While the code
executes an insertion (`held_back.py`), recorded results of later places wait, and live ones come first: those are
`ahead`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Any, Protocol, TypeAlias

from pgflow.execution.engine.held_back import LiveStep, OpenBody, UncalledRows, place_of
from pgflow.execution.event_loop.event_loop import RunLoop
from pgflow.history.events import Event


class FinishedStep(LiveStep, Protocol):
    """A step that carries its own result to the code. `Step` says what each of these is."""

    seq: int | None
    ahead: int | None
    at: datetime
    committed: bool
    ends: tuple[asyncio.Future[None], ...]
    encoded_result: tuple[str, str | None, str | None]
    covering: tuple[Any, ...]

    @property
    def step(self) -> FinishedStep: ...
    @property
    def settled(self) -> bool: ...
    def deliver(self, status: str, output: str | None, error: str | None, at: datetime) -> None: ...


class LiveCall:
    """A live result on its way that is delivered by a call. (Most results are delivered by the step itself.)"""

    __slots__ = ("ahead", "at", "call", "committed", "ends", "seq", "step")

    at: datetime

    def __init__(
        self, seq: int, step: FinishedStep | None, call: Callable[[datetime], None], ahead: int | None
    ) -> None:
        self.seq = seq
        self.ahead = ahead
        """The recorded place right after which it is delivered, before what was recorded later; None: at its own."""
        self.step = step
        self.call = call
        self.committed = False
        self.ends: tuple[asyncio.Future[None], ...] = ()
        """Bodies that have ended without awaiting this result: they end right after it."""


Delivery: TypeAlias = "LiveCall | FinishedStep"
"""A live result on its way: finished, committed, then delivered in the order of `seq`."""


class Order:
    """What waits to be delivered to the code of one run.

    Args:
        loop: on which the code runs.
        events: all rows of its history.
        last: the highest place that history has taken.
    """

    __slots__ = (
        "_entries",
        "_events",
        "_last_recorded",
        "_loop",
        "_seq",
        "uncalled",
        "ends",
        "late",
        "outbox",
        "passed",
        "recorded",
        "root",
    )

    def __init__(self, loop: RunLoop, events: Iterable[Event], last: int) -> None:
        self._loop = loop
        loop.order = self
        self._events = events
        self.root: OpenBody | None = None
        """The workflow's body, once there is one."""
        self.uncalled: UncalledRows | None = None
        """The places that the code has not reached, once they have been needed."""
        self.passed = 0
        """The highest place whose result has been delivered."""
        self._last_recorded = self._seq = last
        self.recorded: list[tuple[int, int, int, Any]] = []
        """What history holds and the code waits for, a heap: the place, whether after it (1: a moment, 2: an
        insertion), in which order.
        """
        self._entries = 0
        self.outbox: deque[Delivery] = deque()
        """Live results that wait for their commit or for their turn."""
        self.late: list[tuple[FinishedStep, str, str | None, str | None]] = []
        """Live results that arrived in the middle of a replay: they get their places when it has come to rest."""
        self.ends: list[asyncio.Future[None]] = []
        """Bodies whose end is next. (No deque: even an empty one takes 760 bytes, and this is nearly always empty.)"""

    @property
    def on_their_way(self) -> bool:
        """Whether live results wait for their commit or for their turn."""
        return bool(self.outbox or self.ends)

    @property
    def replaying(self) -> bool:
        """Whether history holds results that have not been delivered again."""
        return self.passed < self._last_recorded

    @property
    def has_grown(self) -> bool:
        """Whether something live has taken a place."""
        return self._seq > self._last_recorded

    def next_seq(self) -> int:
        """The next place in the order of completion."""
        self._seq += 1
        return self._seq

    def place(self, step: FinishedStep | None, deliver: Callable[[datetime], None]) -> LiveCall:
        """Give something live the next place; it is delivered there once it is committed."""
        ahead = None if self.passed >= self._last_recorded else self._place_ahead()
        delivery = LiveCall(self.next_seq(), step, deliver, ahead)
        self.outbox.append(delivery)
        return delivery

    def place_result(self, step: FinishedStep, status: str, output: str | None, error: str | None) -> int:
        """Give the result of a step the next place."""
        seq = self._seq = self._seq + 1
        step.seq = seq
        step.ahead = None if self.passed >= self._last_recorded else self._place_ahead()
        step.committed = False
        step.ends = ()
        step.encoded_result = (status, output, error)
        self.outbox.append(step)
        return seq

    def place_late(self, place: Callable[[Any, str, str | None, str | None], None]) -> None:
        """Give a place to each result that came in the middle of a replay."""
        late, self.late = self.late, []
        for result in late:
            place(*result)

    def withdraw(self, delivery: Delivery) -> None:
        """Take back a place whose owner was not committed."""
        index = self.outbox.index(delivery)
        if index:
            self.outbox[index - 1].ends = (*self.outbox[index - 1].ends, *delivery.ends)
        else:
            self.ends.extend(delivery.ends)
        self.outbox.remove(delivery)
        if delivery.step is not None:
            delivery.step.seq = None

    def replay(self, seq: int | None, what: Any, *, after: bool = False) -> None:
        """Deliver `what` (something with `deliver_recorded`) when `seq` is the lowest of those awaited, or right after
        it.
        """
        self._entries += 1
        heappush(self.recorded, (seq or 0, int(after), self._entries, what))

    def replay_event(self, event: Event, what: Any) -> None:
        """Deliver `what` where the result of a row stands in the order."""
        if event.turn_seq is None:
            self.replay(event.seq, what)
        else:
            place, after, order = place_of(event)
            self._entries += 1
            heappush(self.recorded, (place, after, order or self._entries, what))

    def is_next(self, seq: int) -> bool:
        """Whether a recorded result of the place `seq` would certainly be delivered before everything
        that waits here.
        """
        if seq > self.passed + 1 or self.ends or self.outbox:
            return False
        return not self.recorded or seq < self.recorded[0][0]

    def _place_ahead(self) -> int | None:
        """The place after which a live result is delivered now, if the code has not come to all that is recorded."""
        at_rest = not self._loop.thread
        return self.passed if at_rest and self._first_behind() is not None else None

    def _first_behind(self) -> Event | None:
        if self.uncalled is None:
            assert self.root is not None
            self.uncalled = UncalledRows(self.root, self._events)
        return self.uncalled.first()

    def holds_back(self) -> bool:
        """Whether what comes after history has to wait, because recorded results stand behind a live step that is under
        way.
        """
        if self.passed >= self._last_recorded:
            return False
        first = self._first_behind()
        return (
            first is not None
            and self.uncalled is not None
            and self.uncalled.awaits_live_step(first, [result[0] for result in self.late])
        )

    def _wait_for_insertion(self, seq: int) -> bool:
        """Whether the recorded result of a place has to wait; if an insertion's recorded result comes first, that
        becomes the next.
        """
        first = self._first_behind()
        if first is None or first.seq is None or first.seq > seq:
            return False
        assert self.uncalled is not None
        if self.uncalled.awaits_live_step(first, [result[0] for result in self.late]):
            return True
        if self.outbox and self.uncalled.ends_insertion(first, [d.step for d in self.outbox if d.step is not None]):
            for delivery in self.outbox:
                delivery.ahead = self.passed
            return True
        entry = self.uncalled.insertion(first, self.recorded)
        if entry is not None:
            self.recorded.remove(entry)
            heapify(self.recorded)
            heappush(self.recorded, (self.passed, 2, entry[0], entry[3]))
        return False

    def after(self, seq: int, future: asyncio.Future[None]) -> asyncio.Future[None]:
        """Let what `future` stands for go on right after a recorded place; returns the same future."""
        self.replay(seq, Boundary(future), after=True)
        return future

    def end_after(self, step: FinishedStep, future: asyncio.Future[None]) -> None:
        """Let a body end, which `future` stands for, when the place of a step has been passed."""
        seq, event = step.seq, step.event
        if event is not None and event.seq == seq:
            self.replay_event(event, Boundary(future))
            return
        for delivery in self.outbox:
            if delivery.seq == seq:
                delivery.ends = (*delivery.ends, future)
                return
        resolve(future)

    def deliver_next(self) -> bool:
        """Deliver the next result in order; whether there was one."""
        if self.ends:
            resolve(self.ends.pop(0))
            return True
        outbox = self.outbox
        if self.recorded and not (outbox and outbox[0].ahead is not None):
            delivered = self._deliver_recorded()
            if delivered is not None:
                return delivered
        if outbox and outbox[0].committed:
            delivery = outbox.popleft()
            assert delivery.seq is not None
            if delivery.ahead is None:
                self.passed = delivery.seq
            if isinstance(delivery, LiveCall):
                delivery.call(delivery.at)
            else:
                status, output, error = delivery.encoded_result
                delivery.deliver(status, output, error, delivery.at)
            if delivery.ends:
                self.ends.extend(delivery.ends)
            return True
        return False

    def _deliver_recorded(self) -> bool | None:
        """Deliver the next recorded result unless it has to wait; returns whether it was delivered, None if nobody
        awaits any.
        """
        while self.recorded:
            seq, after, _, what = self.recorded[0]
            if self.passed < seq and (self.passed + 1 < seq or after or what.cancels) and self._wait_for_insertion(seq):
                return False
            seq, _, _, what = heappop(self.recorded)
            if seq > self.passed:
                self.passed = seq
            if not what.settled:
                what.deliver_recorded()
                return True
        return None

    def deliver_passed(self) -> bool:
        """Deliver the next moment right after a place that has been passed; whether there was one."""
        while self.recorded and self.recorded[0][1] == 1 and self.recorded[0][0] <= self.passed:
            what = heappop(self.recorded)[3]
            if not what.settled:
                what.deliver_recorded()
                return True
        return False

    def awaited_under(self) -> set[Any]:
        """The timeouts that cover a step whose live result is on its way."""
        steps = [d.step for d in self.outbox if d.step is not None and not d.step.settled]
        steps += [entry[3] for entry in self.recorded if getattr(entry[3], "covering", ()) and not entry[3].settled]
        return {timeout for step in steps for timeout in step.covering}


class Boundary:
    """A place in the order of history without a row of its own: the end of a body that left steps behind, the start of
    a turn.
    """

    __slots__ = ("future",)
    settled = False
    cancels = False

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def deliver_recorded(self) -> None:
        """The moment has come."""
        resolve(self.future)


def resolve(future: asyncio.Future[None]) -> None:
    """Let the code that awaits a future go on, unless it was cancelled."""
    if not future.done():
        future.set_result(None)
