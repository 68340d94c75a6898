"""A step: one thing that code asked its context for, from the call until its result is delivered.

    called ----> started ----> finished live ----> committed --.
       |            |                                           >-- delivered
       |            '--> recorded in history, found by replay -'
       '--> dropped: cancelled by the code, by a timeout, or abandoned when its body ended

A step fixes its location when it is called; the coroutine that the call returns starts it. Whether its result comes
from history or from a commit, it reaches the code through `deliver`, one step at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

from pgflow.errors import HistoryDiverged
from pgflow.execution.engine.failure_origin import mark
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.unawaited import keep_unawaited
from pgflow.history.events import (
    STATUS_ABANDONED,
    STATUS_CANCELLED,
    STATUS_COMPLETED,
    STATUS_FAILED,
    STATUS_PENDING,
    Event,
)
from pgflow.history.location import display
from pgflow.model.rows import EventRow

_new_row: Callable[[type[EventRow], tuple[Any, ...]], EventRow] = tuple.__new__
"""`EventRow(...)` without the overhead of its `__new__`: every step makes one."""

_ENDED_WITH_RESULT = (STATUS_COMPLETED, STATUS_FAILED)
_ENDED_WITHOUT = (STATUS_CANCELLED, STATUS_ABANDONED)


class Step:
    """One step of one scope. Subclasses say what starting it does and what its result is."""

    kind: ClassVar[str]
    is_container: ClassVar[bool] = False
    """Loops, branches and timeouts, which stand around other steps."""
    cancels: ClassVar[bool] = False
    """Whether its recorded result also reaches other steps, which have rows of the same place."""
    awaits_child: ClassVar[bool] = False
    """Whether the end of a child ends its wait."""
    listens: ClassVar[bool] = False
    """Whether a signal ends its wait."""

    __slots__ = (
        "ahead",
        "at",
        "attempts",
        "committed",
        "covering",
        "dropped",
        "encoded_result",
        "ends",
        "event",
        "finished",
        "future",
        "input",
        "location",
        "name",
        "recorded",
        "scope",
        "seq",
        "settled",
        "version",
        "wake_at",
    )

    def __init__(self, scope: ScopeView, name: str, version: int, met: Event | None = None) -> None:
        self.scope = scope
        self.name = name
        self.version = version
        self.input: str | None = None
        self.attempts = 0
        self.future: asyncio.Future[Any] | None = None
        self.finished = False
        """Its result has been handed to the journal."""
        self.settled = False
        """Its result has been delivered, or it has been dropped: nothing more happens to it."""
        self.dropped = False
        self.wake_at: datetime | None = None
        scope.call(self, met)

    # Set by Scope.call
    location: str
    event: Event | None
    recorded: bool
    seq: int | None
    """Its place in the order of completion, once it has one."""
    covering: tuple[Any, ...]

    # As a live result on its way (`order.Delivery`), set when it has its place
    ahead: int | None
    at: datetime
    committed: bool
    ends: tuple[asyncio.Future[None], ...]
    encoded_result: tuple[str, str | None, str | None]
    """Its status, output and error."""

    def __str__(self) -> str:
        name = f' "{self.name}"' if self.name else ""
        return f"{self.kind}{name} at {display(self.location)}"

    @property
    def never_entered(self) -> bool:
        """Whether it is a block that the code has not entered."""
        return False

    @property
    def has_ended_row(self) -> bool:
        """Whether history already holds how this step ended."""
        return self.event is not None and self.event.status != STATUS_PENDING

    async def run(self) -> Any:
        """The coroutine that user code awaits."""
        if self.dropped:
            self.check_not_dropped()
        run, event = self.scope.run, self.event
        if event is not None and event.status == STATUS_COMPLETED and run.replays_at_once(event.seq):
            return self._recorded_result(event)
        future = self.future = asyncio.Future(loop=run.loop)
        if event is None or event.status == STATUS_PENDING:
            if not self.finished:  # else it is recorded as cancelled, and the code learns of it in its turn
                self.start()
        elif event.status in _ENDED_WITH_RESULT:
            run.order.replay_event(event, self)
        elif event.status not in _ENDED_WITHOUT:
            run.end_with(
                HistoryDiverged(
                    f'{run.label}: the row of {self} has the status "{event.status}", which there is not. Was it '
                    "written by SQL? Mend it, then retry the workflow.",
                    location=display(self.location),
                    expected="completed, failed, cancelled, abandoned or pending",
                    found=event.status,
                )
            )
        # A cancelled or abandoned one waits for what cancelled it then, and never starts again.
        try:
            return await future
        except asyncio.CancelledError:
            if not self.settled:
                self._cancelled_by_code()
            raise

    def _recorded_result(self, event: Event) -> Any:
        """The result that `deliver` would hand over, for code that need not wait for it."""
        scope = self.scope
        self.settled = True
        del scope.unfinished[self]
        if event.at > scope.now:
            scope.now = event.at
        try:
            return self.result(STATUS_COMPLETED, event.output, event.error)
        except Exception as failure:
            raise mark(failure, self)  # noqa: B904 — it is the same failure

    def start(self) -> None:
        """Begin, or go on with, the work of this step; history holds no result of it."""
        raise NotImplementedError  # pragma: no cover — every kind has its own

    def due(self) -> None:
        """The moment that this step was parked for has come."""
        raise NotImplementedError  # pragma: no cover — every kind that parks with a time has its own

    def stop(self) -> None:
        """End the work in flight: nobody waits for its result any more."""

    def give_up(self) -> None:
        """End the work in flight because this worker is stopping; another worker does it again."""
        self.stop()

    @property
    def step(self) -> Step:
        """Whose result is delivered."""
        return self

    def deliver_recorded(self) -> None:
        """Deliver the recorded result (replay)."""
        event = self.event
        assert event is not None
        self.deliver(event.status, event.output, event.error, event.at)

    def deliver(self, status: str, output: str | None, error: str | None, at: datetime) -> None:
        """Hand the committed result to the code that awaits it; it runs when the loop is drained next."""
        if status == STATUS_FAILED:
            self._join_aftermath(True)
        if self.settled:
            return
        # `settle`, inlined: every live step passes here.
        self.settled = True
        scope = self.scope
        scope.unfinished.pop(self, None)
        if not self.finished:
            scope.run.unpark(self)
        if at > scope.now:
            scope.now = at
        future = self.future
        assert future is not None
        if future.done():
            return
        try:
            value = self.result(status, output, error)
        except Exception as failure:
            future.set_exception(mark(failure, self))
        else:
            future.set_result(value)

    def result(self, status: str, output: str | None, error: str | None) -> Any:
        """The value of a recorded result, or raise the failure that it records."""
        return None

    def check_not_dropped(self) -> None:
        """Stop here if the body that called this step has ended, or its deadline has passed.

        Raises:
            CancelledError: one of these has happened.
        """
        if self.dropped:
            raise asyncio.CancelledError(f"{self} was cancelled while nothing of it was awaited")

    def settle(self) -> None:
        """Settle this step: nothing more happens to it."""
        self.settled = True
        scope = self.scope
        scope.unfinished.pop(self, None)
        if not self.finished:  # a finished step waits for nothing
            scope.run.unpark(self)

    def drop(self) -> None:
        """Cancel this step: its work ends, a later result is not taken, and the code that awaits it is cancelled."""
        if self.settled:
            return
        self.dropped = True
        coroutine = self.scope.unfinished.get(self)
        self.settle()
        self.stop()
        if self.future is not None:
            self.future.cancel()
        elif coroutine is not None:
            keep_unawaited(self.scope, coroutine)

    def row(
        self,
        status: str,
        seq: int | None = None,
        output: str | None = None,
        error: str | None = None,
        wake_at: datetime | None = None,
    ) -> EventRow:
        """The row of history that says how this step stands."""
        return _new_row(
            EventRow,
            (
                self.location,
                self.scope.iteration,
                seq,
                self.version,
                self.kind,
                self.name,
                status,
                self.attempts,
                self.input,
                output,
                error,
                wake_at,
                None,
                None,
                None,
                None,
                None,
            ),
        )

    def pending_row(self) -> EventRow:
        """The row of this step while it has not ended."""
        return self.row(STATUS_PENDING, wake_at=self.wake_at)

    def _join_aftermath(self, failed: bool) -> None:
        """Remember what a retry would have to run again if this failure leaves the workflow before another step is
        called.
        """
        run = self.scope.run
        if run.aftermath is not None:
            run.aftermath.append(self)
        elif failed:
            run.aftermath = [self]

    def _cancelled_by_code(self) -> None:
        # The code cancelled the task that awaited this step. That is recorded, so that a replay does not start again
        # work whose result the code is about to refuse.
        self.dropped = True
        self.settle()
        self.stop()
        self._join_aftermath(False)
        if not self.has_ended_row and not self.finished:
            self.scope.record(self, self.row(STATUS_CANCELLED))
