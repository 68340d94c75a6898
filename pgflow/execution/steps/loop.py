"""A loop whose finished turns are forgotten: `ctx.loop`.

Turn i runs on the branch `L, i+1`. The first row that a turn writes carries the state that it started with, so the rows
themselves say which turn is current; replay begins there, after the same results of other branches as it did then
(`turn_seq`), since the code may compare what comes first. At every multiple of the commit interval, and at the break,
the rows of the ended turns leave active history in a transaction of their own, while the next turn already runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from pgflow.codec import decode, encode, encode_error
from pgflow.errors import HistoryDiverged, PgflowError
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.recorded_arguments import compare
from pgflow.execution.engine.result_order import LiveCall
from pgflow.execution.engine.scope import Scope
from pgflow.execution.engine.step import Step
from pgflow.execution.event_loop.tasks import RunTask
from pgflow.history.events import (
    KIND_LOOP,
    STATUS_CANCELLED,
    STATUS_COMPLETED,
    STATUS_FAILED,
    STATUS_PENDING,
)
from pgflow.history.location import display, turn
from pgflow.model.rows import EventRow
from pgflow.model.writes import Advance

S = TypeVar("S", covariant=True)
V = TypeVar("V", covariant=True)


@dataclass(frozen=True, slots=True)
class Continue(Generic[S]):
    """Returned by a loop's body to go on with the next turn.

    Args:
        state: what the next turn receives, as a decoded copy.
    """

    state: S = None  # type: ignore[assignment]  # a loop without state needs no argument


@dataclass(frozen=True, slots=True)
class Break(Generic[V]):
    """Returned by a loop's body to end the loop.

    Args:
        value: the result of `await ctx.loop(...)`.
    """

    value: V = None  # type: ignore[assignment]  # a loop without output needs no argument


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """What a loop runs and how it forgets.

    Args:
        body: returns the coroutine of one turn, given the turn's scope and the decoded state.
        state_type: the annotation by which states are converted.
        value_type: the annotation by which the output is converted.
        commit_interval: ended turns between two advancements.
        keep_iterations: forgotten turns that are kept for people to read.
    """

    body: Callable[[Scope, Any], Coroutine[Any, Any, Any]]
    state_type: Any
    value_type: Any
    commit_interval: int
    keep_iterations: int


class LoopStep(Step):
    """One loop, over all its turns."""

    kind = KIND_LOOP
    is_container = True
    __slots__ = ("_advancing", "_break", "_first_state", "_plan", "_progress", "_waiting")

    def __init__(self, scope: ScopeView, name: str, version: int, plan: LoopPlan, state: Any) -> None:
        self._plan = plan
        self._progress = 0
        self._advancing = False
        self._waiting: list[asyncio.Future[None]] = []
        self._break: LiveCall | None = None
        self._first_state = encode(
            state, plan.state_type, what=f'state of loop "{name}"', limit=scope.run.limits.payload
        )
        super().__init__(scope, name, version)
        event = self.event
        if event is not None and not event.loop_progress and event.loop_state is not None:  # of no turn yet: the first
            compare(self, lambda: self._first_state, self._meaning, event.loop_state)

    def _meaning(self, state: str) -> Any:
        return decode(state, self._plan.state_type, what=f"state of {self}")

    async def run(self) -> Any:
        event = self.event
        if event is not None and event.status == STATUS_COMPLETED:
            self.scope.run.loop.even_out()
            self.check_not_dropped()
            self.scope.run.order.replay(event.seq, self)
            return await self._unmoved(lambda: asyncio.Future(loop=self.scope.run.loop), event.loop_seq)
        self.check_not_dropped()
        if event is None:
            self.scope.record(self, self.pending_row())
        try:
            return await self._turns()
        except GeneratorExit:
            raise  # the run leaves memory
        except BaseException as error:
            await self.advance_done()  # whose transaction has the loop's row, which says how it ends
            self._left(error)
            raise

    async def _turns(self) -> Any:
        plan, outer, run = self._plan, self.scope, self.scope.run
        limit = run.limits.payload
        task = asyncio.current_task(run.loop)
        cancels = task.cancels if isinstance(task, RunTask) else 0
        index, state, now, seq = self._resume()
        if run.order.uncalled is not None:
            run.order.uncalled.resumed(self.location, turn(self.location, index))
        if seq is not None and seq > run.order.passed:
            await self._unmoved(lambda: run.order.after(seq, asyncio.Future(loop=run.loop)), seq)
            self.check_not_dropped()
        while True:
            run.loop.even_out()
            scope = Scope(
                run,
                outer,
                turn(self.location, index),
                index,
                now,
                self.covering,
                turn_state=state,
                turn_seq=run.order.passed,
            )
            given = decode(state, plan.state_type, what=f"state of {self}")
            try:
                result = await scope.run_body(plan.body(scope, given))
            except BaseException:
                outer.pass_time(scope.now)  # a failed loop runs this turn again on replay
                raise
            self.check_not_dropped()  # while the turn ended: then it stays the last
            now = scope.now
            ended = index + 1
            if isinstance(result, Break):
                output = encode(result.value, plan.value_type, what=f"output of {self}", limit=limit)
                run.loop.even_out()
                return await self._end(ended, state, output, self._last_caught(task, cancels))
            if not isinstance(result, Continue):
                raise PgflowError(
                    f"the body of {self} returned {type(result).__name__} in turn {index}. Expected: "
                    "`Continue(state)` to go on or `Break(value)` to end."
                )
            state = encode(result.state, plan.state_type, what=f"state of {self}", limit=limit)
            if ended % plan.commit_interval == 0 and ended > self._progress:
                await self.advance_done()
                self._advance(ended, state, None, None, run.order.passed)
            if not scope.has_rows:
                await run.yield_()
            index = ended

    def _last_caught(self, task: asyncio.Task[Any] | None, cancels: int) -> int:
        """The last place at which a replay, which does not run the turns again, takes a cancellation for one that their
        body has caught: what comes later, be it at the place where the loop ended, ends the code's wait for it.

        Args:
            cancels: how often the task had been cancelled when the loop began, or went on.
        """
        passed = self.scope.run.order.passed
        caught = (
            isinstance(task, RunTask)
            and task.cancels > cancels
            and task.cancelled_at == passed
            and (task.cancelled_by is None or task.cancelled_by in self.covering)
        )
        return passed if caught else passed - 1

    async def _unmoved(self, wait: Callable[[], asyncio.Future[Any]], until: int | None) -> Any:
        """Wait, on replay, for what comes after turns that are not run again.

        A cancellation that comes up to the place `until` was caught by the body in one of those turns: the loop went
        on.
        """
        while True:
            future = self.future = wait()
            try:
                return await future
            except asyncio.CancelledError:
                if not self.settled and (until is None or self.scope.run.order.passed > until):
                    self._cancelled_by_code()
                if self.settled:
                    raise

    def _resume(self) -> tuple[int, str, datetime, int | None]:
        """The turn to run first, the state that it starts with, the time, and the place in the order after which it
        starts.
        """
        event, scope = self.event, self.scope
        if event is None:
            return 0, self._first_state, scope.now, None
        self._progress = event.loop_progress or 0
        last = scope.run.history.last_turn(self.location)
        if last is None or last < self._progress:
            state = event.loop_state if event.loop_state is not None else self._first_state
            now = scope.now if self._progress == 0 else max(scope.now, scope.run.claimed.now)
            return self._progress, state, now, event.loop_seq
        start = scope.run.history.turn_start(self.location, last)
        if start is None or start.turn_state is None or start.turn_now is None:
            scope.run.end_with(
                HistoryDiverged(
                    f"{scope.run.label}: turn {last} of {self} has rows, but none that carries the state it started "
                    "with. Was a row of it removed by hand? Restore it, or fork the workflow before the loop.",
                    location=display(self.location),
                    expected="a row with turn_state",
                    found="none",
                )
            )
        return last, start.turn_state, start.turn_now, start.turn_seq if last else None

    async def _end(self, ended: int, state: str, output: str, caught: int) -> Any:
        run = self.scope.run
        await self.advance_done()
        future = self.future = asyncio.Future(loop=run.loop)
        self._break = run.reserve(self, lambda at: self.deliver(STATUS_COMPLETED, output, None, at))
        self._advance(ended, state, output, self._break.seq, caught)
        return await future

    def _advance(self, turns: int, state: str, output: str | None, seq: int | None, started: int) -> None:
        self._advancing = True
        self._progress = turns
        self.scope.run.advance_after_writes(
            Advance(
                self.scope.run.claimed.workflow_id,
                self.scope.run.claimed.epoch,
                self.location,
                turns,
                state,
                self._plan.keep_iterations,
                output,
                seq,
                self._advanced,
                self._refused,
                started,
            )
        )

    def _advanced(self, advance: Advance, at: datetime) -> None:
        run = self.scope.run
        run.host.observe_time(at)
        self._advancing = False
        if run.closed:
            return
        run.outgoing.witness = (self.location, STATUS_COMPLETED if advance.breaks else STATUS_PENDING)
        if self._break is not None and advance.breaks:
            self._break.committed = True
            self._break.at = at
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            run.release(future)
        run.advanced(advance.moved)

    def _refused(self, advance: Advance, error: BaseException) -> None:
        self._advancing = False
        self.scope.run.advancing -= 1
        self.scope.run.lost(error)

    async def advance_done(self) -> None:
        """Wait, unseen by the code, until no advancement of this loop is in flight."""
        while self._advancing:
            future = self.scope.run.hold()
            self._waiting.append(future)
            await future

    def _left(self, error: BaseException) -> None:
        """An exception left the body: the row says so; replay runs the last turn again all the same."""
        run = self.scope.run
        if self.settled or run.closed or run.fatal is not None:
            return
        self.settle()
        if self.has_ended_row or self.finished:
            return
        if issubclass(type(error), asyncio.CancelledError):
            self.scope.record(self, self.row(STATUS_CANCELLED))
        else:
            self.scope.record(self, self.row(STATUS_FAILED, error=encode_error(error)))

    def pending_row(self) -> EventRow:
        return self.row(STATUS_PENDING)._replace(loop_progress=0, loop_state=self._first_state)

    def result(self, status: str, output: str | None, error: str | None) -> Any:
        return decode(output or "null", self._plan.value_type, what=f"output of {self}")
