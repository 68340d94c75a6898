"""The order in which results reach the code: one at a time, by `seq`, the same live and on replay.

    recorded results, the lowest `seq` first  ->  live ones, strictly by `seq`, each after its commit

A result takes its place when it is finished, not when it is committed: a later one waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pgflow.execution.step import Step


class LiveCall:
    """Something live on its way that a call delivers. (Most results are delivered by the step itself.)"""

    __slots__ = ("at", "call", "committed", "ends", "seq", "step")

    at: datetime

    def __init__(self, seq: int, step: Step | None, call: Callable[[datetime], None]) -> None:
        self.seq = seq
        self.step = step
        self.call = call
        self.committed = False
        self.ends: Sequence[asyncio.Future[None]] = ()
        """Bodies that have left this result behind: they end right after it."""


Delivery: TypeAlias = "LiveCall | Step"
"""A live result on its way: finished, then committed, then delivered in the order of `seq`."""


class Order:
    """What waits to be delivered to the code of one run.

    Parameters:
        last: the highest place that history has taken.
    """

    __slots__ = ("_entries", "_last_recorded", "_seq", "ends", "outbox", "passed", "recorded")

    def __init__(self, last: int) -> None:
        self.passed = 0
        """The highest place whose result has been delivered."""
        self._last_recorded = self._seq = last
        self.recorded: list[tuple[int, bool, int, Any]] = []
        """What history holds and the code waits for, a heap."""
        self._entries = 0
        self.outbox: deque[Delivery] = deque()
        """Live results that wait for their commit or for their turn."""
        self.ends: deque[asyncio.Future[None]] = deque()
        """Bodies whose end is next."""

    @property
    def on_their_way(self) -> bool:
        """Whether live results wait for their commit or for their turn."""
        return bool(self.outbox or self.ends)

    @property
    def replaying(self) -> bool:
        """Whether history holds results that have not been delivered again."""
        return self.passed < self._last_recorded

    def next_seq(self) -> int:
        """The next place in the order of completion."""
        self._seq += 1
        return self._seq

    def place(self, step: Step | None, deliver: Callable[[datetime], None]) -> LiveCall:
        """Give something live the next place; it is delivered there once it is committed."""
        delivery = LiveCall(self.next_seq(), step, deliver)
        self.outbox.append(delivery)
        return delivery

    def place_result(self, step: Step, status: str, output: str | None, error: str | None) -> int:
        """Give the result of a step the next place."""
        seq = self._seq = self._seq + 1
        step.seq = seq
        step.committed = False
        step.ends = ()
        step.outcome = (status, output, error)
        self.outbox.append(step)
        return seq

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
        """Deliver `what` (something with `deliver_recorded`) when `seq` is the lowest of those awaited, or right after it."""
        self._entries += 1
        heappush(self.recorded, (seq or 0, after, self._entries, what))

    def is_next(self, seq: int) -> bool:
        """Whether a recorded result of the place `seq` would be delivered before everything that waits here."""
        return not self.ends and (not self.recorded or seq < self.recorded[0][0])

    def after(self, seq: int, future: asyncio.Future[None]) -> asyncio.Future[None]:
        """Let what `future` stands for go on in the moment right after a recorded place; the same future."""
        self.replay(seq, Moment(future), after=True)
        return future

    def end_after(self, seq: int, future: asyncio.Future[None]) -> None:
        """Let a body end, which `future` stands for, when the place `seq` has been passed."""
        if seq <= self._last_recorded:
            self.replay(seq, Moment(future))
            return
        for delivery in self.outbox:
            if delivery.seq == seq:
                delivery.ends = (*delivery.ends, future)
                return
        resolve(future)

    def deliver_next(self) -> bool:
        """Deliver the next result in order; whether there was one."""
        if self.ends:
            resolve(self.ends.popleft())
            return True
        while self.recorded:
            seq, _, _, what = heappop(self.recorded)
            if seq > self.passed:
                self.passed = seq
            if not what.settled:
                what.deliver_recorded()
                return True
        outbox = self.outbox
        if outbox and outbox[0].committed:
            delivery = outbox.popleft()
            assert delivery.seq is not None
            self.passed = delivery.seq
            if isinstance(delivery, LiveCall):
                delivery.call(delivery.at)
            else:
                status, output, error = delivery.outcome
                delivery.deliver(status, output, error, delivery.at)
            if delivery.ends:
                self.ends.extend(delivery.ends)
            return True
        return False

    def deliver_passed(self) -> bool:
        """Deliver the next moment right after a place that has been passed; whether there was one."""
        while self.recorded and self.recorded[0][1] and self.recorded[0][0] <= self.passed:
            what = heappop(self.recorded)[3]
            if not what.settled:
                what.deliver_recorded()
                return True
        return False

    def awaited_under(self) -> set[Any]:
        """The timeouts that cover a step whose live result is on its way."""
        steps = [d.step for d in self.outbox if d.step is not None and not d.step.settled]
        return {timeout for step in steps for timeout in step.covering}


class Moment:
    """What has a place in the order of history but no row: the end of a body that left steps behind, the start of a turn."""

    __slots__ = ("future",)
    settled = False

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def deliver_recorded(self) -> None:
        """The moment has come."""
        resolve(self.future)


def resolve(future: asyncio.Future[None]) -> None:
    """Let whoever awaits a future go on, unless it was cancelled."""
    if not future.done():
        future.set_result(None)
