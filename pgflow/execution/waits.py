"""What a run waits for outside its process's control: deadlines, signals, children. Its steps are parked here.

A parked step has a moment, or (None) an event from outside, at which it goes on. One timer stands for the earliest
moment of all; when the run waits for nothing but what is parked here, it sleeps.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pgflow.execution.crossing import RunCrossings
from pgflow.execution.host import Host, Timer
from pgflow.execution.listen import ListenStep
from pgflow.execution.order import Order
from pgflow.execution.ports import Suspended

if TYPE_CHECKING:
    from collections.abc import Callable

    from pgflow.execution.step import Step
    from pgflow.execution.timers import TimeoutStep


class Waits:
    """The parked steps of one run.

    Parameters:
        host: gives the time and the timer.
        wake: called when the earliest moment has come.
    """

    def __init__(self, host: Host, wake: Callable[[], None]) -> None:
        self._host = host
        self._wake = wake
        self.short = 0
        """How many of the steps wait so shortly that the lease is kept."""
        self.parked: dict[Step, bool] = {}
        """The steps that wait, and whether so shortly that the lease is kept."""
        self._due_timeouts: list[TimeoutStep] = []
        self._timer: Timer | None = None
        self._timer_at: datetime | None = None

    def park(self, step: Step, wake_at: datetime | None, short: bool) -> None:
        """`step` waits for a moment, or (None) for an event from outside."""
        self.unpark(step)
        step.wake_at = wake_at
        self.parked[step] = short
        self.short += short

    def unpark(self, step: Step) -> None:
        """`step` no longer waits."""
        self.short -= self.parked.pop(step, False)

    def listening(self) -> list[ListenStep]:
        """The steps that listen for signals, in the order of their locations."""
        found = [step for step in self.parked if isinstance(step, ListenStep)]
        return sorted(found, key=lambda step: step.location)

    def suspension(self, mailbox: int) -> Suspended:
        """What the run sleeps on; each step that it sleeps on gets a row."""
        wake_at: datetime | None = None
        names: dict[str, None] = {}
        children = False
        for step in self.parked:
            if not step.recorded:
                step.scope.record(step, step.pending_row())
            if step.wake_at is not None and (wake_at is None or step.wake_at < wake_at):
                wake_at = step.wake_at
            names.update(dict.fromkeys(step.waits_for))
            children = children or step.awaits_child
        return Suspended(wake_at, tuple(names), mailbox, children)

    def set_timer(self) -> None:
        """See to it that the run is woken at the earliest moment."""
        first: datetime | None = None
        for step in self.parked:
            at = step.wake_at
            if at is not None and (first is None or at < first):
                first = at
        if first == self._timer_at and self._timer is not None:
            return
        self.cancel_timer()
        self._timer_at = first
        if first is not None:
            self._timer = self._host.call_at(first, self._timer_fired)

    def cancel_timer(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        self._wake()

    def wake_due(self) -> None:
        """Let the steps whose moment has come go on."""
        now = self._host.now()
        for step in list(self.parked):
            if step.wake_at is not None and step.wake_at <= now:
                self.unpark(step)
                step.due()

    def add_due_timeout(self, timeout: TimeoutStep) -> None:
        """The deadline of an open timeout has passed; it fires at rest."""
        self._due_timeouts.append(timeout)

    def overdue(self, step: Step) -> bool:
        """Whether a timeout that covers the step is due and has not fired yet."""
        return any(timeout in step.covering for timeout in self._due_timeouts)

    def fire_timeouts(self, order: Order, crossings: RunCrossings) -> None:
        """At rest: fire the timeouts that are due, unless a result of a step they cover is on its way."""
        due, self._due_timeouts = self._due_timeouts, []
        for timeout in due:
            if timeout.settled:
                continue
            if order.awaits_result_under(timeout) or crossings.in_flight_under(timeout):
                self._due_timeouts.append(timeout)  # a result of a step it covers comes first
            else:
                timeout.fire()
