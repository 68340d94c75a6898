"""Steps that wait for a moment: `ctx.sleep`, `ctx.sleep_until` and `async with ctx.timeout`.

Deadlines are the database's time. One that is more than a second away has a pending row from its start, and a workflow
that waits for nothing else gives up its lease; a nearer one is waited for in memory.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from pgflow.codec import encode_error
from pgflow.errors import PgflowError
from pgflow.execution.engine.failure_origin import mark
from pgflow.execution.engine.held_back import ahead
from pgflow.execution.engine.interfaces import ScopeView, StepView
from pgflow.execution.engine.step import Step
from pgflow.execution.event_loop.tasks import RunTask
from pgflow.history.events import (
    KIND_SLEEP,
    KIND_TIMEOUT,
    STATUS_CANCELLED,
    STATUS_COMPLETED,
    STATUS_FAILED,
    STATUS_PENDING,
)
from pgflow.model.moments import after

SHORT = timedelta(seconds=1)
"""A wait up to this long keeps the lease and writes no pending row."""


class SleepStep(Step):
    """A durable sleep."""

    kind = KIND_SLEEP
    __slots__ = ("_duration", "_until")

    def __init__(self, scope: ScopeView, version: int, duration: timedelta | None, until: datetime | None) -> None:
        self._duration = duration
        self._until = until
        super().__init__(scope, "", version)

    def start(self) -> None:
        park_until(self, self._deadline())

    def _deadline(self) -> datetime:
        if self.event is not None and self.event.wake_at is not None:
            return self.event.wake_at
        if self._until is not None:
            return self._until
        assert self._duration is not None
        return after(self.scope.run.host.now(), self._duration)

    def due(self) -> None:
        self.scope.run.finish(self, STATUS_COMPLETED)


class TimeoutStep(Step):
    """A durable deadline around steps: the object of `async with ctx.timeout(...)`.

    It fires only at rest, when no result of the steps that it covers waits to be delivered. Its row and those of the
    innermost unfinished steps it covers are one write; live and on replay it then cancels the task that is inside the
    block, and those steps in location order.
    """

    kind = KIND_TIMEOUT
    is_container = cancels = True
    __slots__ = ("_calls", "_cancelling", "_duration", "_fired", "_open", "_task")

    def __init__(self, scope: ScopeView, version: int, duration: timedelta) -> None:
        self._duration = duration
        self._fired = False
        self._calls: int | None = None
        self._open = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        super().__init__(scope, "", version)

    @property
    def never_entered(self) -> bool:
        return self._task is None

    async def __aenter__(self) -> None:
        self.scope.check_usable()
        task = asyncio.current_task()
        assert task is not None
        if self._task is not None:
            raise PgflowError(
                f"{self} was entered before: a timeout is one deadline around one block. Call `ctx.timeout(...)` anew "
                "for each block."
            )
        self._task = task
        self._cancelling = task.cancelling()
        self._open = True
        self.scope.covering = (*self.scope.covering, self)
        event = self.event
        if event is None or event.status == STATUS_PENDING:
            deadline = event.wake_at if event is not None else None
            park_until(self, deadline or after(self.scope.run.host.now(), self._duration))
        elif event.status == STATUS_FAILED:
            self.scope.run.order.replay_event(event, self)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        scope, run = self.scope, self.scope.run
        scope.covering = tuple(timeout for timeout in scope.covering if timeout is not self)
        if run.closed or run.fatal is not None or self._task is None:
            return
        if self._fired:
            left = self._task.uncancel()
            if left <= self._cancelling and isinstance(error, asyncio.CancelledError):
                passed = TimeoutError(
                    f"{self} passed after {self._duration.total_seconds():g} s with its steps unfinished"
                )
                raise mark(passed, self, self._calls) from error
            return
        if self.settled:
            return
        if self.seq is not None:
            # It fires, too late for the block; what it cancels is told so in its turn. The body's end does not wait for
            # that: it would not if a crash came before the row, and what comes in between would be seen in another
            # order.
            scope.unfinished.pop(self, None)
            return
        self.settle()
        if not self.has_ended_row:
            scope.record(self, self.row(STATUS_COMPLETED))

    @property
    def inserted(self) -> bool:
        """Whether what history holds next in its body was recorded without it, or history holds nothing there."""
        row = self.scope.cursor.next_row
        return row is None or row.version < self.version

    def due(self) -> None:
        self.scope.run.add_due_timeout(self)

    def fire(self) -> None:
        """The deadline has passed at rest: cancel what the block waits for."""
        self.finished = True
        covered = [step for step in self._covered() if not step.finished]
        run = self.scope.run
        delivery = run.deliver_later(lambda at: self._cancel(covered, at), self)
        error = encode_error(TimeoutError(f"{self._duration.total_seconds():g} s have passed"))
        self.scope.record(self, ahead(self.row(STATUS_FAILED, delivery.seq, error=error), delivery.ahead, self.scope))
        for step in covered:
            step.finished = True
            step.stop()
            run.unpark(step)
            step.scope.record(step, ahead(step.row(STATUS_CANCELLED, delivery.seq), delivery.ahead, step.scope))

    def deliver_recorded(self) -> None:
        event = self.event
        assert event is not None
        covered = [
            step
            for step in self._covered()
            if step.event is not None and step.event.status == STATUS_CANCELLED and step.event.seq == event.seq
        ]
        self._cancel(covered, event.at)

    def _covered(self) -> list[StepView]:
        return [step for step in self.scope.all_unfinished() if not step.is_container and self in step.covering]

    def _cancel(self, covered: list[StepView], at: datetime) -> None:
        if self.settled:
            return
        self.scope.pass_time(at)
        self.settle()
        if self._open:
            self._fired = True
            self._calls = self.scope.run.calls  # what the block calls from here on is its cleanup
            assert self._task is not None
            self._task.cancel()
            if isinstance(self._task, RunTask):
                self._task.cancelled_by = self
        for step in covered:
            step.drop()


def park_until(step: Step, deadline: datetime) -> None:
    """Let a step wait for a moment: due at once if it has passed, with a pending row unless it is near."""
    run = step.scope.run
    remaining = deadline - run.host.now()
    if remaining <= timedelta(0):
        step.due()
        return
    short = remaining <= SHORT
    run.park(step, deadline, short)
    if not short and (step.event is None or step.event.wake_at is None):
        step.scope.record(step, step.pending_row())
