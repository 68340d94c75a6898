"""A run: one workflow in this process's memory, from the claim to the end, the next sleep or the hand-back.

The worker schedules a run whenever something happened to it; `pump` then brings it to rest:

    drain the loop -> deliver the next result -> drain -> ... -> nothing to deliver -> write what was gathered, and
    wait (something is in flight), suspend (only deadlines or events are awaited), or end (the body has returned)

Results are delivered one at a time, in the order of their `seq`: those that history records first, then those that
this run has committed. Nothing is delivered before it is committed, and nothing is delivered ahead of a lower `seq`.
All writes of a run go to the journal in order, so a step never becomes durable before one that it depends on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Container, Coroutine, Iterable
from datetime import datetime
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from pgflow.codec import encode_error
from pgflow.errors import EngineError, LeaseLost, PgflowError
from pgflow.execution.host import Host, Timer
from pgflow.execution.listen import ListenStep
from pgflow.execution.ports import (
    Advance,
    Arrived,
    Claimed,
    Completed,
    EventRow,
    Failed,
    Outcome,
    Released,
    Signal,
    Suspended,
    Write,
)
from pgflow.execution.run_loop import RunLoop
from pgflow.execution.scope import Scope
from pgflow.history.events import STATUS_ABANDONED, STATUS_PENDING, HistoryIndex

if TYPE_CHECKING:
    from pgflow.definitions import Workflow
    from pgflow.execution.step import Step
    from pgflow.execution.timers import TimeoutStep

log = logging.getLogger("pgflow.execution")

_SLICE = 0.02  # seconds of replay before other runs get a turn


class Delivery:
    """A live result on its way: finished, then committed, then delivered in the order of `seq`."""

    __slots__ = ("at", "committed", "deliver", "seq", "step")

    def __init__(
        self, seq: int, step: Step | None, deliver: Callable[[datetime], None]
    ) -> None:
        self.seq = seq
        self.step = step
        self.deliver = deliver
        self.committed = False
        self.at: datetime


class Run:
    """One claimed workflow and the execution of its code.

    Parameters:
        claimed: the workflow with its lease and its history.
        workflow: the definition whose code runs.
        host: the worker that the run lives in.
    """

    def __init__(self, claimed: Claimed, workflow: Workflow[Any, Any], host: Host) -> None:
        self.claimed = claimed
        self.workflow = workflow
        self.host = host
        self.label = f'workflow "{claimed.name}" {claimed.workflow_id}'
        self.loop = RunLoop(self.label, self._loop_time, self._note_fatal)  # type: ignore[abstract]
        self.history = HistoryIndex(claimed.events)
        self.active_rows = len(claimed.events)
        self.fatal: EngineError | None = None
        self.closed = False
        self.scheduled = False
        """Whether the worker has this run in its queue; kept by the worker."""
        self.attempts_running = 0
        self.advancing = 0
        self._mailbox = claimed.signals
        self._consumed: list[tuple[UUID, str]] = []
        self.held = 0
        """Waits that the code must not be able to observe: nothing is delivered meanwhile."""
        self._seq = self.history.max_seq
        self._recorded: list[tuple[int, int, Any]] = []
        self._entries = 0
        self._outbox: deque[Delivery] = deque()
        self._yields: list[asyncio.Future[None]] = []
        self._resuming: list[asyncio.Future[None]] = []
        self._rows: list[EventRow] = []
        self._deliveries: list[Delivery] = []
        self._after_commit: list[Callable[[], None]] = []
        self._in_flight: deque[tuple[list[Delivery], list[Callable[[], None]]]] = deque()
        self._parked: dict[Step, bool] = {}
        self._short_waits = 0
        self._due_timeouts: list[TimeoutStep] = []
        self._timer: Timer | None = None
        self._timer_at: datetime | None = None
        self._outcome: Outcome | None = None
        self._pumping = False
        self._stopping = False
        self._root: asyncio.Task[Any] | None = None
        self.scope = Scope(self, None, "", 0, claimed.created_at)

    # Life

    def start(self, body: Callable[[Scope], Coroutine[Any, Any, Any]]) -> None:
        """Begin to execute the body that `body(scope)` gives; the worker pumps it next."""
        self._root = self.loop.create_task(body(self.scope), name=self.claimed.name)
        self.scope.owner = self._root
        self.host.schedule(self)

    def pump(self) -> None:
        """Bring the run to rest. Called by the worker from a plain callback."""
        if self.closed or self._outcome is not None:
            return
        self._pumping = True
        until = time.monotonic() + _SLICE
        rounds = 0
        root = self._root
        assert root is not None
        resuming, self._resuming = self._resuming, []
        for future in resuming:
            _resolve(future)
        try:
            while True:
                self.loop.drain()
                if self.fatal is not None or root.done():
                    self._end(root)
                    return
                if self._stopping or not self._deliver_next():
                    break
                rounds += 1
                if rounds % 64 == 0 and time.monotonic() > until:
                    self.host.schedule(self)
                    self._flush()
                    return
        finally:
            self._pumping = False
        self._rest()

    def receive(self, arrived: Arrived) -> bool:
        """Take news from outside: signals go to whoever listens for them, in the order of locations.

        Returns:
            False when earlier news were missed: they have to be read first.
        """
        claimed = self.claimed
        if arrived.epoch != claimed.epoch or arrived.after > claimed.mailbox:
            return False
        new = [signal for signal in arrived.signals if signal.number > claimed.mailbox]
        claimed.mailbox = max(claimed.mailbox, arrived.mailbox)
        claimed.cancel_requested = claimed.cancel_requested or arrived.cancel
        if self.closed or self._outcome is not None:
            return True  # the write under way, or the next claim, finds them in the database
        self._mailbox.extend(new)
        self._offer_signals()
        if arrived.pause:
            self.stop()
        self.host.schedule(self)
        return True

    def resume(self, claimed: Claimed) -> None:
        """Go on after a sleep that was spent in memory: nobody has had the workflow meanwhile."""
        claimed.input, claimed.events = self.claimed.input, self.claimed.events
        self.claimed = claimed
        self._mailbox = claimed.signals
        self._outcome = None
        self._pumping = True  # what falls due is written together, at the end of the pump
        try:
            self._wake_due()
            self._offer_signals()
        finally:
            self._pumping = False
        self.host.schedule(self)

    def stop(self) -> None:
        """Deliver nothing more, let running activities end, then hand the workflow back."""
        self._stopping = True
        self.host.schedule(self)

    def give_up_attempts(self) -> None:
        """Cancel the activities in flight (the grace period is over); the workflow is handed back."""
        self._stopping = True
        for step in self.scope.all_unfinished():
            step.stop()
        self.attempts_running = 0
        self.host.schedule(self)

    def discard(self) -> None:
        """Leave memory: no write, no step, no user code after this."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for step in self.scope.all_unfinished():
            step.stop()
        self.loop.discard()

    # What scopes and steps ask for

    def check_alive(self) -> None:
        """Raise what ended this run, if it has ended."""
        if self.fatal is not None:
            raise self.fatal
        if self.closed:
            raise LeaseLost(
                f"{self.label} no longer runs in this process: its steps cannot be called any more."
            )

    def end_with(self, error: Exception) -> NoReturn:
        """Raise `error` in the code, and, when it is the engine's, end the run with it whatever the code does."""
        if isinstance(error, EngineError):
            self._note_fatal(error)
        raise error

    def take_row(self, row: EventRow) -> None:
        """Gather a row for the next write."""
        self._rows.append(row)
        self._count_row()

    def take_signals(self, names: Container[str], limit: int) -> list[Signal]:
        """Take the first signals of these names out of the mailbox in memory."""
        taken: list[Signal] = []
        left: list[Signal] = []
        for signal in self._mailbox:
            wanted = len(taken) < limit and signal.name in names
            (taken if wanted else left).append(signal)
        if taken:
            self._mailbox = left
        return taken

    def consume(self, ids: Iterable[UUID], location: str) -> None:
        """Record with the next write that signals were taken by the listen at a location."""
        self._consumed.extend((id, location) for id in ids)

    def replay(self, seq: int | None, what: Any) -> None:
        """Deliver `what` (something with `deliver_recorded`) when `seq` is the lowest of those awaited."""
        self._entries += 1
        heappush(self._recorded, (seq or 0, self._entries, what))

    def finish(
        self, step: Step, status: str, output: str | None = None, error: str | None = None
    ) -> None:
        """Record how a step ended; its result is delivered once that is committed."""
        step.finished = True
        self.unpark(step)
        delivery = self._next_delivery(step, lambda at: step.deliver(status, output, error, at))
        step.scope.record(step, step.row(status, delivery.seq, output, error))
        self._deliveries.append(delivery)
        self.flush_soon()

    def next_seq(self) -> int:
        """The next place in the order of completion."""
        self._seq += 1
        return self._seq

    def flush_soon(self) -> None:
        """See to it that gathered rows are written: at the end of the pump, or now when there is none."""
        if not self._pumping and self._outcome is None and not self.closed:
            if self._stopping:
                self.host.schedule(self)
            self._flush()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call `call` once all rows gathered so far are committed."""
        self._after_commit.append(call)
        self.flush_soon()

    def park(self, step: Step, wake_at: datetime | None, short: bool = False) -> None:
        """`step` waits for a moment, or (None) for an event from outside; a short wait keeps the lease."""
        self.unpark(step)
        step.wake_at = wake_at
        self._parked[step] = short
        self._short_waits += short
        if not self._pumping:
            self.host.schedule(self)

    def unpark(self, step: Step) -> None:
        """`step` no longer waits."""
        self._short_waits -= self._parked.pop(step, False)

    def hold(self) -> asyncio.Future[None]:
        """A future during which nothing is delivered: a wait that leaves no trace in the order of things."""
        self.held += 1
        return self.loop.create_future()

    def release(self, future: asyncio.Future[None]) -> None:
        """End a hold."""
        self.held -= 1
        if not future.done():
            future.set_result(None)
        self.host.schedule(self)

    def yield_(self) -> asyncio.Future[None]:
        """A future that resolves after the worker's loop has had a turn."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._yields.append(future)
        return future

    def add_due_timeout(self, timeout: TimeoutStep) -> None:
        """The deadline of an open timeout has passed."""
        self._due_timeouts.append(timeout)
        self.host.schedule(self)

    async def abandon(self, steps: list[Step]) -> None:
        """Cancel what a body leaves unfinished; returns when that is recorded and its turn has come."""
        recorded: int | None = None
        unrecorded = False
        for step in steps:
            event = step.event
            if event is not None and event.status != STATUS_PENDING:
                if event.status == STATUS_ABANDONED and event.seq is not None:
                    recorded = event.seq
            elif not step.finished:
                unrecorded = True
        await self.wait_for_advances(steps)
        for step in steps:
            step.drop()
        if not unrecorded:
            if recorded is not None:
                waiting = _RecordedEnd(self.loop.create_future())
                self.replay(recorded, waiting)
                await waiting.future
            return
        future: asyncio.Future[None] = self.loop.create_future()
        delivery = self._next_delivery(None, lambda at: _resolve(future))
        self.scope.abandon_rows(steps, delivery.seq)
        self._deliveries.append(delivery)
        await future

    async def wait_for_advances(self, steps: list[Step]) -> None:
        """Wait until no loop among `steps` is being advanced."""
        for step in steps:
            idle = getattr(step, "advance_done", None)
            if idle is not None:
                await idle()

    def deliver_later(self, deliver: Callable[[datetime], None]) -> Delivery:
        """A place in the order of completion for something that is committed with the next write."""
        delivery = self._next_delivery(None, deliver)
        self._deliveries.append(delivery)
        return delivery

    def reserve(self, step: Step, deliver: Callable[[datetime], None]) -> Delivery:
        """A place in the order of completion for what another transaction than the journal's commits."""
        step.finished = True
        return self._next_delivery(step, deliver)

    def advance_after_writes(self, advance: Advance) -> None:
        """Hand over an advancement once all rows gathered so far are committed."""
        self.advancing += 1
        self.after_commit(lambda: self._hand_over_advance(advance))

    def advanced(self) -> None:
        """One advancement has committed."""
        self.advancing -= 1
        self.host.schedule(self)

    def lost(self, error: BaseException) -> None:
        """A write was refused: leave memory, or fail the workflow when its own data is to blame."""
        if self.closed:
            return
        if isinstance(error, LeaseLost):
            log.warning("%s left this worker: %s", self.label, error)
            self.discard()
            self.host.finished(self, None)
            return
        log.error("%s: the database refused its rows: %s", self.label, error)
        self._rows, self._deliveries, self._after_commit, self._consumed = [], [], [], []
        self._write_outcome(Failed(encode_error(error)))

    # Resting

    def _deliver_next(self) -> bool:
        """Deliver the next result in order; whether there was one."""
        if self.held:
            return False
        while self._recorded:
            what = heappop(self._recorded)[2]
            if not what.settled:
                what.deliver_recorded()
                return True
        outbox = self._outbox
        if outbox and outbox[0].committed:
            delivery = outbox.popleft()
            delivery.deliver(delivery.at)
            return True
        return False

    def _rest(self) -> None:
        if self._stopping:
            self._hand_back_when_idle()
            return
        if self._due_timeouts:
            self._fire_timeouts()
        if self._yields:
            self._resuming, self._yields = self._yields, []
            self.host.schedule(self)
        waiting = (
            self.attempts_running
            or self.advancing
            or self._short_waits
            or self._outbox
            or self._deliveries
            or self._after_commit
            or self._resuming
            or self.held
        )
        if not waiting:
            if self._parked:
                self._suspend()
                return
            if not any(calls for _, calls in self._in_flight):
                self._note_stuck()
                return
        self._set_timer()
        self._flush()

    def _suspend(self) -> None:
        wake_at: datetime | None = None
        names: dict[str, None] = {}
        children = False
        for step in self._parked:
            if not step.recorded:
                step.scope.record(step, step.pending_row())
            if step.wake_at is not None and (wake_at is None or step.wake_at < wake_at):
                wake_at = step.wake_at
            names.update(dict.fromkeys(step.waits_for))
            children = children or step.awaits_child
        self._write_outcome(Suspended(wake_at, tuple(names), self.claimed.mailbox, children))

    def _hand_back_when_idle(self) -> None:
        if self.attempts_running or self.advancing:
            self._flush()
        else:
            self._write_outcome(Released())

    def _note_stuck(self) -> None:
        self._write_outcome(
            Failed(
                encode_error(
                    PgflowError(
                        f"{self.label} waits for something that no step will bring about: no activity runs, no deadline "
                        "and no signal is awaited, and its code has not returned. Look for an event, lock or future that "
                        "nobody sets, or for a task that waits for itself."
                    )
                )
            )
        )

    def _set_timer(self) -> None:
        first: datetime | None = None
        for step in self._parked:
            at = step.wake_at
            if at is not None and (first is None or at < first):
                first = at
        if first == self._timer_at and self._timer is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = first
        if first is not None:
            self._timer = self.host.call_at(first, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self.closed or self._outcome is not None or self._stopping:
            return
        self._wake_due()
        self.host.schedule(self)

    def _wake_due(self) -> None:
        now = self.host.now()
        for step in list(self._parked):
            if step.wake_at is not None and step.wake_at <= now:
                self.unpark(step)
                step.due()

    def _offer_signals(self) -> None:
        if self._mailbox:
            listening = [step for step in self._parked if isinstance(step, ListenStep)]
            for step in sorted(listening, key=lambda step: step.location):
                step.offer()

    def _fire_timeouts(self) -> None:
        due, self._due_timeouts = self._due_timeouts, []
        for timeout in due:
            if timeout.settled:
                continue
            if any(
                d.step is not None and not d.step.settled and timeout in d.step.covering
                for d in self._outbox
            ):
                self._due_timeouts.append(timeout)  # a result of a step it covers comes first
            else:
                timeout.fire()

    # Writing

    def _flush(self, outcome: Outcome | None = None) -> None:
        if not self._rows and outcome is None and not self._after_commit:
            return
        if not self._rows and outcome is None and not self._in_flight:
            calls, self._after_commit = self._after_commit, []
            for call in calls:
                call()
            return
        if not self._rows and outcome is None:
            # Everything gathered is in flight already: wait for the last write.
            self._in_flight[-1][1].extend(self._after_commit)
            self._after_commit = []
            return
        write = Write(
            self.claimed.workflow_id,
            self.claimed.epoch,
            self._rows,
            outcome,
            self._committed,
            self._refused,
            self._consumed,
        )
        self._in_flight.append((self._deliveries, self._after_commit))
        self._rows, self._deliveries, self._after_commit, self._consumed = [], [], [], []
        self.host.journal.write(write)

    def _write_outcome(self, outcome: Outcome) -> None:
        self._outcome = outcome
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flush(outcome)

    def _committed(self, write: Write, at: datetime) -> None:
        self.host.observe_time(at)
        deliveries, calls = self._in_flight.popleft()
        if self.closed:
            return
        for delivery in deliveries:
            delivery.committed = True
            delivery.at = at
        if write.outcome is not None:
            if not isinstance(write.outcome, Suspended) or not self.host.keep(self):
                self.discard()
            self.host.finished(self, write.outcome)
            return
        for call in calls:
            call()
        self.host.schedule(self)

    def _refused(self, write: Write, error: BaseException) -> None:
        self._in_flight.popleft()
        if isinstance(write.outcome, Failed) and not isinstance(error, LeaseLost):
            # Not even the failure can be stored. The lease ends with the worker, and somebody has read this by then.
            log.error("%s: the database refused its failure: %s", self.label, error)
            self.discard()
            self.host.finished(self, None)
        else:
            self.lost(error)

    def _hand_over_advance(self, advance: Advance) -> None:
        if not self.closed:
            self.host.loops.advance(advance)

    def _next_delivery(self, step: Step | None, deliver: Callable[[datetime], None]) -> Delivery:
        delivery = Delivery(self.next_seq(), step, deliver)
        self._outbox.append(delivery)
        return delivery

    def _count_row(self) -> None:
        self.active_rows += 1
        limits = self.host.limits
        if self.active_rows == limits.warn_rows:
            log.warning(
                "%s has %d rows of active history, which every wake-up reads again. Put its repetition in `ctx.loop(...)`, "
                "whose finished turns are forgotten.",
                self.label,
                self.active_rows,
            )
        elif self.active_rows > limits.max_rows:
            self._note_fatal(
                EngineError(
                    f"{self.label} has more than {limits.max_rows} rows of active history. Expected: repetition stands in "
                    "`ctx.loop(...)`, whose finished turns are forgotten. Raise the worker's `max_active_rows` to let this "
                    "one go on, then retry it."
                )
            )

    # Ending

    def _note_fatal(self, error: EngineError) -> None:
        if self.fatal is None:
            self.fatal = error

    def _end(self, root: asyncio.Task[Any]) -> None:
        if isinstance(self.fatal, LeaseLost):
            self.lost(self.fatal)
        elif self.advancing:
            # The lease is kept until the loop's turns are forgotten; `advanced` schedules this run again.
            if self.fatal is None:
                self._flush()
        else:
            self._write_outcome(self._outcome_of(root))

    def _outcome_of(self, root: asyncio.Task[Any]) -> Outcome:
        error: BaseException | None = self.fatal
        output = ""
        if error is None:
            if root.cancelled():
                error = asyncio.CancelledError("the workflow's code cancelled itself")
            else:
                error = root.exception()
            if error is None:
                try:
                    self.scope.check_latent()
                    output = self.workflow.encode_result(root.result(), self.host.limits.payload)
                except Exception as failure:
                    error = failure
        if isinstance(error, EngineError):
            # Divergence and its like write no event: what this pump gathered is dropped.
            self._rows, self._deliveries, self._after_commit, self._consumed = [], [], [], []
            return Failed(encode_error(error))
        unfinished = self.scope.all_unfinished()
        self.scope._close_below()
        self.scope.abandon_rows(unfinished, self.next_seq() if unfinished else None)
        for step in unfinished:
            step.drop()
        self.loop.drain()  # the tasks that the body left behind see their cancellation
        if error is not None:
            return Failed(encode_error(error))
        return Completed(output)

    def _loop_time(self) -> float:
        return self.scope.now.timestamp()


class _RecordedEnd:
    """The recorded end of a body that abandoned steps, waiting for its place in the order."""

    __slots__ = ("future",)
    settled = False

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future

    def deliver_recorded(self) -> None:
        _resolve(self.future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
