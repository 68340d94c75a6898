"""What a run waits for that does not depend on its process: deadlines, signals, children. The steps that wait are
parked here.

A parked step has a moment, or (None) an event from outside, at which it goes on. One timer is set for the earliest
moment of all; when the run waits for nothing but what is parked here, it sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from heapq import heapify, heappop, heappush
from typing import Any

from pgflow.execution.engine.crossings import RunCrossings
from pgflow.execution.engine.host import Services, Timer
from pgflow.execution.engine.interfaces import ListenView, StepView, TimeoutView
from pgflow.execution.engine.result_order import Order
from pgflow.model.outcomes import Suspended


class ParkedSteps:
    """The parked steps of one run.

    Args:
        host: gives the time and the timer.
        wake: called when the earliest moment has come: pump the run.
    """

    __slots__ = (
        "_awaiting_children",
        "_entries",
        "_fresh",
        "_host",
        "_listening",
        "_timer_at",
        "_wake",
        "due_timeouts",
        "fired",
        "moments",
        "parked",
        "short",
        "timer",
    )

    def __init__(self, host: Services, wake: Callable[[], None]) -> None:
        self._host = host
        self._wake = wake
        self.short = 0
        """How many of the steps wait for a time so short that the lease is kept."""
        self.parked: dict[StepView, bool] = {}
        """The steps that wait, and whether for a time so short that the lease is kept."""
        self._fresh: dict[StepView, None] = {}
        """The steps that began to wait after the run last slept."""
        self._listening: dict[Any, None] = {}
        self._awaiting_children = 0
        self.moments: list[tuple[datetime, int, StepView]] = []
        """When steps go on, earliest first; a step that no longer waits by then is skipped."""
        self._entries = 0
        self.due_timeouts: list[TimeoutView] = []
        """Open timeouts whose deadline has passed: they fire at rest."""
        self.timer: Timer | None = None
        self._timer_at: datetime | None = None
        self.fired = False
        """Whether the timer has reported a moment at which no step has gone on yet."""

    def park(self, step: StepView, wake_at: datetime | None, short: bool) -> None:
        """`step` waits for a moment, or (None) for an event from outside."""
        self.unpark(step)
        step.wake_at = wake_at
        self.parked[step] = short
        self.short += short
        self._fresh[step] = None
        if step.listens:
            self._listening[step] = None
        self._awaiting_children += step.awaits_child
        if wake_at is not None:
            self._entries += 1
            heappush(self.moments, (wake_at, self._entries, step))
            if len(self.moments) > 2 * len(self.parked) + 64:
                self.moments = [entry for entry in self.moments if self._stands(entry)]
                heapify(self.moments)

    def unpark(self, step: StepView) -> None:
        """`step` no longer waits."""
        short = self.parked.pop(step, None)
        if short is None:
            return
        self.short -= short
        self._fresh.pop(step, None)
        if step.listens:
            del self._listening[step]
        self._awaiting_children -= step.awaits_child

    def _stands(self, entry: tuple[datetime, int, StepView]) -> bool:
        return entry[2] in self.parked and entry[2].wake_at == entry[0]

    def _first(self) -> datetime | None:
        """The earliest moment at which a step goes on."""
        while self.moments:
            if self._stands(self.moments[0]):
                return self.moments[0][0]
            heappop(self.moments)
        return None

    def listening(self) -> list[ListenView]:
        """The steps that listen for signals, in the order of their locations."""
        return sorted(self._listening, key=lambda step: step.location)

    def suspension(self, mailbox: int) -> Suspended:
        """What the run sleeps on; each step that it sleeps on gets a row."""
        for step in self._fresh:
            if not step.recorded:
                step.scope.record(step, step.pending_row())
        self._fresh.clear()
        names = dict.fromkeys(name for step in self._listening for name in step.waits_for)
        return Suspended(self._first(), tuple(names), mailbox, self._awaiting_children > 0)

    def set_timer(self) -> None:
        """Set the timer, so that the run is woken at the earliest moment."""
        first = self._first()
        if first == self._timer_at and self.timer is not None:
            return
        self.cancel_timer()
        self._timer_at = first
        if first is not None:
            self.timer = self._host.call_at(first, self._timer_fired)

    def cancel_timer(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _timer_fired(self) -> None:
        self.timer = None
        self.fired = True
        self._wake()

    def catch_up(self) -> None:
        """Within the pump, let the steps whose moment has come go on; what falls due together is written together."""
        self.fired = False
        self.wake_due()

    def wake_due(self) -> None:
        """Let the steps whose moment has come go on."""
        now = self._host.now()
        while (first := self._first()) is not None and first <= now:
            step = heappop(self.moments)[2]
            self.unpark(step)
            step.due()

    def overdue(self, step: StepView) -> bool:
        """Whether a timeout that covers the step is due and has not fired yet."""
        return any(timeout in step.covering for timeout in self.due_timeouts)

    def fire_timeouts(self, order: Order, crossings: RunCrossings) -> None:
        """At rest: fire the timeouts that are due, unless a result of a step they cover is on its way."""
        due, self.due_timeouts = self.due_timeouts, []
        awaited = order.awaited_under()
        for timeout in due:
            if timeout.settled:
                continue
            if (
                timeout in awaited
                or crossings.in_flight_under(timeout)
                or (order.holds_back() and not timeout.inserted)
            ):
                self.due_timeouts.append(timeout)  # the result of a step that it covers comes first
            else:
                timeout.fire()
                awaited.update(timeout.covering)
