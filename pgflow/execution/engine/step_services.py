"""What bodies of code and steps ask of their run: to be recorded, to wait, to be delivered.

What concerns a single part of the run they ask of that part (`run.order`, `run.outgoing`, `run.crossings`,
`run.mailbox`); what concerns several parts is here.
"""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NoReturn

from pgflow.errors import EngineError, LeaseLost
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.engine.held_back import ahead
from pgflow.execution.engine.interfaces import StepView, TimeoutView
from pgflow.execution.engine.result_order import LiveCall, Order
from pgflow.execution.engine.scope import Scope
from pgflow.execution.engine.waits import ParkedSteps
from pgflow.execution.engine.write_buffer import WriteBuffer
from pgflow.execution.event_loop.event_loop import RunLoop
from pgflow.model.claimed import Claimed
from pgflow.model.outcomes import Outcome
from pgflow.model.writes import Advance

BETWEEN_LOOKS = 64
"""How many steps are replayed between two looks at the clock."""


class StepServices:
    """The part of a run that its steps use; `Run` holds the state and documents it."""

    __slots__ = ("_at_once", "_pumping", "_yielded", "advancing", "fatal")

    claimed: Claimed
    host: Any  # `Host`, which knows `Run`
    loop: RunLoop
    order: Order
    outgoing: WriteBuffer
    scope: Scope
    """The workflow's own body."""
    fatal: EngineError | None
    outcome: Outcome | None
    closed: bool
    halted: bool
    cautious: bool
    advancing: int
    _at_once: int
    _pumping: bool
    _replaying: bool
    _root: asyncio.Task[Any] | None
    _starting: list[ActivityCall]
    _waits: ParkedSteps
    _yielded: asyncio.Future[None] | None

    @property
    def label(self) -> str:
        """The workflow, for messages."""
        return f'workflow "{self.claimed.name}" {self.claimed.workflow_id}'

    def schedule(self) -> None:
        """Be pumped by the worker, in a later callback."""
        raise NotImplementedError  # pragma: no cover — `Run` has it

    def check_alive(self) -> None:
        """Raise what ended this run, if it has ended."""
        if self.fatal is not None:
            raise self.fatal
        if self.closed:
            raise LeaseLost(f"{self.label} no longer runs in this process: its steps cannot be called any more.")

    def end_with(self, error: Exception) -> NoReturn:
        """Raise `error` in the code, and, when it is the engine's, end the run with it whatever the code does."""
        if isinstance(error, EngineError):
            self.note_fatal(error)
        raise error

    def note_fatal(self, error: EngineError) -> None:
        """The run ends with this error, whatever the code does."""
        if self.fatal is None:
            self.fatal = error
            if not self._pumping:
                self.schedule()

    def replays_at_once(self, seq: int | None) -> bool:
        """Whether the running task, if it waited for the recorded result of this place, would be the next to go on.

        Then it need not wait, and that cannot be observed. Now and then it waits all the same, so that a long replay
        leaves the pump.
        """
        if seq is None or self.fatal is not None:
            return False
        if not (self.order.is_next(seq) and self.loop.rests_after(current_task(self.loop))):
            return False
        if self._root is None or self._root.done():
            return False  # steps that the code left behind when it ended get no result, as they got none then
        self._at_once += 1
        if self._at_once >= BETWEEN_LOOKS:
            return False
        self.order.passed = seq
        return True

    def finish(self, step: StepView, status: str, output: str | None = None, error: str | None = None) -> None:
        """Record how a step ended; its result is delivered once that is committed."""
        step.finished = True
        waits = self._waits
        if waits.parked:
            waits.unpark(step)
        order = self.order
        if (self._replaying or self.loop.thread) and order.replaying:
            order.late.append((step, status, output, error))
            return
        # `place`, inlined: every live step passes here.
        row = step.row(status, order.place_result(step, status, output, error), output, error)
        step.scope.record(step, row if step.ahead is None else ahead(row, step.ahead, step.scope))
        self.outgoing.deliveries.append(step)
        self.flush_soon()

    def place(self, step: StepView, status: str, output: str | None, error: str | None) -> None:
        """Give the result of a step the next place in the order, and record it."""
        seq = self.order.place_result(step, status, output, error)
        row = step.row(status, seq, output, error)
        step.scope.record(step, row if step.ahead is None else ahead(row, step.ahead, step.scope))
        self.outgoing.deliveries.append(step)
        self.flush_soon()

    def finish_together(self, calls: Iterable[Callable[[], None]]) -> None:
        """Make calls that finish steps; a later pump writes together what they record."""
        if self.closed or self.outcome is not None:
            return
        self._pumping = True
        try:
            for call in calls:
                call()
        finally:
            self._pumping = False
        self.schedule()

    def flush_soon(self) -> None:
        """Make sure that gathered rows are written: at the end of the pump, or now if no pump is running."""
        if not self._pumping and not self._replaying and self.outcome is None and not self.closed:
            if self.halted:
                self.schedule()
            self.outgoing.flush()

    def start_attempt(self, call: ActivityCall) -> None:
        """Let an attempt begin, when the run is at rest."""
        if self._pumping or self._replaying or self.cautious:
            self._starting.append(call)
            if not self._pumping:
                self.schedule()
        else:
            self.host.start_activity(call)

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call `call` once all rows gathered so far are committed."""
        self.outgoing.call_after(call)
        self.flush_soon()

    def park(self, step: StepView, wake_at: datetime | None, short: bool = False) -> None:
        """`step` waits for a moment, or (None) for an event from outside; a short wait keeps the lease."""
        self._waits.park(step, wake_at, short)
        if not self._pumping:
            self.schedule()

    def unpark(self, step: StepView) -> None:
        """`step` no longer waits."""
        waits = self._waits
        if waits.parked:
            waits.unpark(step)

    def hold(self) -> asyncio.Future[None]:
        """A future to be awaited at once; until it is done no code of the run goes on and nothing is delivered."""
        return self.loop.freeze()

    def release(self, future: asyncio.Future[None]) -> None:
        """End a hold."""
        self.loop.thaw(future)
        self.schedule()

    def yield_(self) -> asyncio.Future[None]:
        """A hold that ends once the worker's event loop has had a turn."""
        self._yielded = self.loop.freeze()
        return self._yielded

    def add_due_timeout(self, timeout: TimeoutView) -> None:
        """Note that the deadline of an open timeout has passed."""
        self._waits.due_timeouts.append(timeout)
        self.schedule()

    def deliver_later(self, deliver: Callable[[datetime], None], step: StepView | None = None) -> LiveCall:
        """A place in the order of completion for something that is committed with the next write."""
        call = self.order.place(step, deliver)
        self.outgoing.deliveries.append(call)
        return call

    def reserve(self, step: StepView, deliver: Callable[[datetime], None]) -> LiveCall:
        """A place in the order of completion for what is committed by a transaction other than the journal's."""
        step.finished = True
        call = self.order.place(step, deliver)
        step.seq = call.seq
        return call

    def write_alone(self, begin: Callable[[], None]) -> None:
        """Call `begin`, which writes by another transaction, when all gathered is durable; until `written_alone`
        nothing more is written.
        """
        self.outgoing.write_alone(begin)

    def written_alone(self, new: bool) -> None:
        """Such a transaction has ended; `new` says whether it added a row to history."""
        if new:
            self.outgoing.count_row()
        self.outgoing.written_alone()
        self.schedule()

    def advance_after_writes(self, advance: Advance) -> None:
        """Hand over an advancement once all rows gathered so far are committed."""
        self.outgoing.advance_after(advance)
        self.flush_soon()

    def advanced(self, moved: int) -> None:
        """One advancement has committed, and its rows have left active history."""
        self.advancing -= 1
        self.outgoing.forget_rows(moved)
        self.schedule()
