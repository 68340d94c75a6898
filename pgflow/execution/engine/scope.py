"""A scope: a body of code (workflow, branch or loop turn) over its own stretch of history.

It gives each step that is called its location, keeps history free of holes, knows which of its steps are unfinished,
and carries what a body sees of the world: the time, the random numbers.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Coroutine
from datetime import datetime
from threading import get_ident
from typing import Any, TypeVar

from pgflow.codec import class_name, described, message_of
from pgflow.errors import (
    EngineError,
    HistoryDiverged,
    LatentHistory,
    NondeterminismError,
    PgflowError,
)
from pgflow.execution.engine.abandonment import abandon
from pgflow.execution.engine.failure_origin import leaves_behind
from pgflow.execution.engine.held_back import ahead
from pgflow.execution.engine.interfaces import RunView, ScopeView, StepView
from pgflow.execution.engine.unawaited import close_unawaited, settle_unawaited, unawaited
from pgflow.execution.event_loop.generators import left_generator
from pgflow.history.cursor import Cursor, named
from pgflow.history.events import STATUS_ABANDONED, STATUS_PENDING, Event
from pgflow.history.location import display
from pgflow.model.rows import EventRow

T = TypeVar("T")


class Scope:
    """One body and its branch of history.

    Args:
        run: the run that it belongs to.
        location: stored form of the branch; "" is the root.
        iteration: the turn of the innermost loop around it, 0 outside loops.
        now: the time that the body starts with.
        covering: the timeouts that were open where this body was called.
        turn_state: for a loop's turn, the state to be written with the turn's first row.
        turn_seq: for a loop's turn, the place in the order of completion after which it started, to be written there
            too.
    """

    __slots__ = (
        "_random",
        "_turn_state",
        "aside",
        "children",
        "closed",
        "covering",
        "cursor",
        "has_rows",
        "inner_runs",
        "iteration",
        "location",
        "now",
        "owner",
        "parent",
        "run",
        "reported",
        "turn",
        "turn_now",
        "turn_seq",
        "unfinished",
        "unrecorded",
    )

    def __init__(
        self,
        run: RunView,
        parent: ScopeView | None,
        location: str,
        iteration: int,
        now: datetime,
        covering: tuple[Any, ...] = (),
        turn_state: str | None = None,
        turn_seq: int | None = None,
    ) -> None:
        self.run = run
        self.parent = parent
        self.location = location
        self.iteration = iteration
        self.now = now
        self.turn_now = now
        self.turn_seq = turn_seq
        self.turn: ScopeView | None = self if turn_state is not None else parent and parent.turn
        """The turn of the innermost loop that this body is, or stands in."""
        self.covering = covering
        events = run.history.children(location)
        self.cursor = Cursor(location, events)
        self.has_rows = bool(events)
        self._turn_state = turn_state if not events else None
        self.owner: asyncio.Task[Any] | None = None
        """The task that runs it."""
        self.inner_runs = False
        """Whether that task is running a body within it."""
        self.unfinished: dict[StepView, Coroutine[Any, Any, Any] | None] = {}
        """Steps that have been called and not delivered, and what the code is to await of each."""
        self.aside: dict[Any, tuple[str | None, Coroutine[Any, Any, Any]]] | None = None
        """Calls that are no steps, and have not begun."""
        self.reported: set[tuple[str, ...]] | None = None
        """In the workflow's own scope: the calls that were logged because they were never awaited."""
        self.unrecorded: deque[StepView] = deque()
        self.children: dict[ScopeView, None] = {}
        self.closed: bool = parent is not None and parent.closed
        self._random: random.Random | None = None
        if parent is not None:
            parent.children[self] = None

    def check_usable(self) -> None:
        """Refuse a step that the run could not replay.

        Raises:
            NondeterminismError: the context is used from another task than its body's, after its body has ended,
                or from outside the workflow.
            EngineError: the run has ended with this error already.
        """
        run = self.run
        if run.fatal is not None or run.closed:
            run.check_alive()
        loop = run.loop
        if loop.leaving is not None:
            run.end_with(left_generator(run.label, loop.leaving))
        if loop.thread != get_ident():  # asking asyncio for the running loop is a system call
            raise self._outside()
        if self.closed:
            raise PgflowError(
                f"{run.label}: a step was called on the context of {self.describe()} after its body had ended. Await "
                "what the body starts before it returns, or call the step on the context of the body around it."
            )
        task = asyncio.current_task(loop)
        if task is not self.owner:
            run.end_with(
                NondeterminismError(
                    f"{run.label}: the context of {self.describe()} was used from two tasks "
                    f"({self.owner.get_name() if self.owner else 'none'} and {task.get_name() if task else 'none'}). "
                    "Which of them comes first would decide where their steps stand. Give each concurrent piece of "
                    "code a branch of its own, with `ctx.join(...)` or `ctx.branch(closure)`.",
                    location=display(self.location),
                    expected="steps called by one task",
                    found="steps called by two tasks",
                )
            )
        if run.bodies.get(task) is not self:
            self._check_turn(task)

    def _outside(self) -> NondeterminismError:
        return NondeterminismError(
            f"{self.run.label}: the workflow's context was used outside of the workflow's own code, for example in an "
            "activity or a thread. Only the workflow calls steps; pass the activity the values that it needs."
        )

    def _check_turn(self, task: asyncio.Task[Any] | None) -> None:
        """Refuse a step of a loop's turn on the context of a body around the loop."""
        body = self.run.bodies.get(task)
        if body is not None and body.turn is not None and body.turn is not self.turn:
            self.run.end_with(
                NondeterminismError(
                    f"{self.run.label}: {body.turn.describe()}, a loop's turn, used the context of {self.describe()} "
                    "around the loop. A replay does not run finished turns again, so that what they do there would "
                    "be taken for something else. Use the context that the loop's body is given.",
                    location=display(self.location),
                    expected="the context of the turn",
                    found=f"the context of {self.describe()}",
                )
            )

    def call(self, step: StepView, met: Event | None) -> None:
        """Fix the location of a step that the code has just called.

        Args:
            met: the row that the cursor meets as the step's own, if that has been asked already.
        """
        run = self.run
        loop = run.loop
        if (
            run.fatal is not None
            or run.closed
            or self.closed
            or loop.thread != get_ident()
            or self.inner_runs
            or asyncio.current_task(loop) is not self.owner
        ):
            self.check_usable()
        event = met
        if met is not None:
            self.cursor.pass_by(met)
            step.location = met.location
        else:
            try:
                step.location, event = self.cursor.step(step.kind, step.name, step.version)
            except EngineError as error:
                run.end_with(error)
            except Exception as error:
                run.end_with(
                    HistoryDiverged(
                        f"{run.label}: history of {self.describe()} cannot be read: {described(error)}. Were rows of "
                        "it written by SQL? Mend them, then retry the workflow.",
                        location=display(self.location),
                        expected="rows at locations",
                        found=described(error),
                    )
                )
        step.event = event
        step.covering = self.covering
        if event is None:
            step.recorded = False
            step.seq = None
            self.unrecorded.append(step)
        else:
            step.recorded = True
            step.seq = event.seq
            step.attempts = event.attempts
            uncalled = run.order.uncalled
            if uncalled is not None:
                uncalled.called(step.location)
        self.unfinished[step] = None
        run.calls += 1
        run.aftermath = None

    def holds_end_of(self, kind: str, name: str, version: int) -> bool:
        """Whether history holds the end of the step that would be called now, so that it needs no arguments."""
        event = self.cursor.meets(kind, name, version)
        return event is not None and event.status != STATUS_PENDING

    def record(self, step: StepView, row: EventRow) -> None:
        """Hand a step's row to the run's next write, with rows for earlier steps that have none, so that there are no
        holes.
        """
        new = not step.recorded
        if new:
            step.recorded = True
            unrecorded = self.unrecorded
            if unrecorded and unrecorded[0] is step:
                unrecorded.popleft()
            else:
                self.record_before(step)
        if row.seq is not None:
            step.seq = row.seq
        if self._turn_state is None:
            self.has_rows = True
            self.run.outgoing.gather(row, new)
        else:
            self._hand_over(row, new)

    def record_before(self, step: StepView) -> None:
        """Hand over rows for the steps called before `step` that have none."""
        unrecorded = self.unrecorded
        while unrecorded and unrecorded[0] is not step:
            earlier = unrecorded.popleft()
            if not earlier.recorded:
                earlier.recorded = True
                self._hand_over(earlier.pending_row(), True)

    def row_alone(self, row: EventRow) -> EventRow:
        """Note a row that another transaction than the journal's is about to write."""
        if self._turn_state is None:
            return row
        return row._replace(turn_state=self._turn_state, turn_now=self.turn_now, turn_seq=self.turn_seq)

    def recorded_alone(self, step: StepView) -> None:
        """Note that such a row is durable."""
        step.recorded = self.has_rows = True
        self._turn_state = None

    def _hand_over(self, row: EventRow, new: bool) -> None:
        if self._turn_state is not None:
            row = row._replace(turn_state=self._turn_state, turn_now=self.turn_now, turn_seq=self.turn_seq)
            self._turn_state = None
        self.has_rows = True
        self.run.outgoing.gather(row, new)

    def pass_time(self, at: datetime) -> None:
        """Note that an event recorded at this time has been passed."""
        if at > self.now:
            self.now = at

    def random(self) -> random.Random:
        """This branch's random numbers: the same on every replay.

        Raises:
            NondeterminismError: they were drawn outside of the workflow's code, or in the turns of a loop within this
                body.
        """
        if self.run.loop.thread != get_ident():
            raise self._outside()
        self._check_turn(asyncio.current_task())
        if self._random is None:
            digest = hashlib.sha256(self.run.claimed.seed.bytes + self.location.encode()).digest()
            self._random = random.Random(digest)
        return self._random

    def all_unfinished(self) -> list[StepView]:
        """The unfinished steps of this scope and of all below, in location order."""
        if not self.unfinished and not self.children:
            return []
        found: list[StepView] = []
        waiting: list[ScopeView] = [self]
        while waiting:
            scope = waiting.pop()
            found.extend(scope.unfinished)
            waiting.extend(scope.children)
        found.sort(key=lambda step: step.location)
        return found

    def check_latent(self, leaving: BaseException | None = None) -> None:
        """Refuse to end a body while history holds more steps than its code called.

        An exception that leaves the body (`leaving`) does not change that: it is not what the code did then. If the
        exception won, what it leaves unfinished would be recorded as abandoned, and the code around the body could
        compensate what history knows to have succeeded. So latent history wins, nothing is written, and the message
        names the exception as well.

        Raises:
            LatentHistory: events are left over.
        """
        if self.cursor.exhausted:
            return
        left = self.cursor.remaining()
        where, found = display(left[0].location), named(left[0].kind, left[0].name)
        by = "" if leaving is None else f" by {class_name(leaving)} ({message_of(leaving)[:200]})"
        advice = "Mend what raises it, put" if by else "Put"
        self.run.end_with(
            LatentHistory(
                f"{self.run.label}: {self.describe()} has ended{by}, but history goes on with {len(left)} more "
                f"step{'s' if len(left) > 1 else ''}, the first {found} at {where}. Expected: the code calls every "
                f"step that history holds. {advice} the step back, or stand `await ctx.removed(...)` in its place, "
                f"then retry the workflow, or fork it before {where}.",
                location=where,
                expected=f"the end of {self.describe()}",
                found=found,
            )
        )

    async def run_body(self, body: Coroutine[Any, Any, T]) -> T:
        """Run a branch's or a turn's body in the current task, and end it."""
        task = self.owner = asyncio.current_task()
        bodies = self.run.bodies
        outer = bodies.get(task)
        bodies[task] = self
        if outer is not None:
            outer.inner_runs = True
        try:
            value = await body
            self.check_latent()
        except GeneratorExit:
            raise  # the run leaves memory
        except BaseException as error:
            if self.run.fatal is None:
                self.check_latent(error)
                leaves_behind(error, await self.close())
            raise
        finally:
            if outer is None:
                del bodies[task]
            else:
                bodies[task] = outer
                outer.inner_runs = False
        await self.close(returned=True)
        return value

    def record_mark(self, row: EventRow) -> None:
        """Record a mark in history (a version check, a removed step), a row that nobody waits for."""
        for earlier in self.unrecorded:
            if not earlier.recorded:
                earlier.recorded = True
                self._hand_over(earlier.pending_row(), True)
        self.unrecorded.clear()
        self._hand_over(row, True)

    async def close(self, returned: bool = False) -> list[StepView]:
        """End the body, which has returned or raised: its unfinished steps are cancelled, recorded as abandoned, and
        returned.

        Whether anything had to be abandoned is itself something that the code can observe by its timing, so the end of
        such a body has its place in the order of completion like any result.
        """
        unfinished = self.all_unfinished()
        self.close_below()
        if unfinished or self.aside:
            found = unawaited(self)
            if unfinished:
                await abandon(self, unfinished)
            settle_unawaited(self, found, returned)
        if self.parent is not None:
            self.parent.children.pop(self, None)
            if self.turn is not self:  # the loop reports the time that its turns have passed, since replay skips them
                self.parent.pass_time(self.now)
        return unfinished

    def close_below(self) -> None:
        """Take no more steps, neither here nor in the bodies below."""
        self.closed = True
        for child in self.children:
            child.close_below()

    def stop(self) -> None:
        """End the work of all unfinished steps, and close what was never awaited: the run leaves memory."""
        for step in self.all_unfinished():
            step.stop()
        close_unawaited(self)

    def forget_steps(self) -> None:
        """Forget the steps of this body and of those below, which refer back here: their run leaves memory."""
        for child in self.children:
            child.forget_steps()
        self.children.clear()
        self.unfinished.clear()
        self.unrecorded.clear()

    def abandon_rows(self, steps: list[StepView], seq: int | None, after: int | None = None) -> None:
        """Record as abandoned those of `steps` whose end is not in history."""
        for step in steps:
            if not step.has_ended_row and not step.finished:
                step.scope.record(step, ahead(step.row(STATUS_ABANDONED, seq, wake_at=step.wake_at), after, step.scope))

    def describe(self) -> str:
        """How a message names this body."""
        return f"the branch {display(self.location)}" if self.location else "the workflow"
