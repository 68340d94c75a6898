"""A run: one workflow in this process's memory, from the claim to the end, the next sleep or the hand-back.

The worker schedules a run whenever something happened to it; `pump` then brings it to rest:

    drain the loop -> deliver the next result -> drain -> ... -> nothing to deliver -> write what was gathered, and
    wait (something is in flight), suspend (only deadlines or events are awaited), or end (the body has returned)

`result_order.py` says which result is next, `waits.py` keeps what is waited for, `write_buffer.py` gathers what is
to be written.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Protocol

from pgflow.codec import encode_error
from pgflow.definitions.descriptors import Workflow
from pgflow.errors import EngineError, LeaseLost
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.engine.arrivals import receive
from pgflow.execution.engine.blame import begin
from pgflow.execution.engine.cancellation import deliver_cancellation, replay_cancellations
from pgflow.execution.engine.crossings import RunCrossings
from pgflow.execution.engine.ending import engine_failure, outcome_of, stuck
from pgflow.execution.engine.held_back import tell_what_holds_back
from pgflow.execution.engine.host import Services
from pgflow.execution.engine.interfaces import FirstCancel, ScopeView, StepView
from pgflow.execution.engine.mailbox import Mailbox
from pgflow.execution.engine.result_order import Order
from pgflow.execution.engine.scope import Scope
from pgflow.execution.engine.step_services import BETWEEN_LOOKS, StepServices
from pgflow.execution.engine.waits import ParkedSteps
from pgflow.execution.engine.write_buffer import WriteBuffer
from pgflow.execution.event_loop.event_loop import RunLoop
from pgflow.execution.event_loop.spinning import SpinTimer
from pgflow.execution.event_loop.stage import offstage
from pgflow.history.events import HistoryIndex
from pgflow.model.claimed import Arrived, Claimed
from pgflow.model.outcomes import Failed, Outcome, Released, Suspended
from pgflow.observe.log_records import fields_of, log_failed_workflow

log = logging.getLogger("pgflow.execution")

_SLICE = 0.02  # seconds of replay after which other runs get a turn


class Host(Services, Protocol):
    """What a run needs of the worker that it lives in. Everything is called on the worker's event loop.

    `schedule` may be called on a stage, as `start_activity` may.
    """

    def schedule(self, run: Run) -> None:
        """Pump `run` in a later callback; once, however often it is asked before that."""
        ...

    def keep(self, run: Run) -> bool:
        """Whether `run`, which has just suspended, stays in memory: `Run.resume` goes on with it without a replay."""
        ...

    def finished(self, run: Run, outcome: Outcome | None) -> None:
        """`run` has ended, suspended or left memory: its outcome is committed, or (None) its lease was lost."""
        ...


class Run(StepServices):
    """One claimed workflow and the execution of its code.

    Args:
        claimed: the workflow with its lease and its history.
        workflow: the definition whose code runs.
        host: the worker that the run lives in.
    """

    __slots__ = (
        "_cut_off",
        "_replaying",
        "_root",
        "_rounds",
        "_starting",
        "_until",
        "_waits",
        "aftermath",
        "attempts_running",
        "back_at",
        "bodies",
        "calls",
        "cancel_taken_at",
        "cancelled",
        "claimed",
        "closed",
        "crossings",
        "first_cancel",
        "halted",
        "history",
        "host",
        "leaving",
        "limits",
        "loop",
        "mailbox",
        "order",
        "outcome",
        "outgoing",
        "pausing",
        "scheduled",
        "scope",
        "cautious",
        "workflow",
    )

    host: Host

    def __init__(self, claimed: Claimed, workflow: Workflow[Any, Any], host: Host) -> None:
        self.claimed = claimed
        self.workflow = workflow
        self.host = host
        self.limits = host.limits
        self.loop = RunLoop(
            lambda: self.label,
            claimed.seed.int,
            lambda: self.scope.now.timestamp(),
            self.note_fatal,
            SpinTimer(self).look,
        )  # type: ignore[abstract]
        self.history = HistoryIndex(claimed.events)
        self.fatal: EngineError | None = None
        self.closed = False
        self.scheduled = False
        """Whether the worker has this run in its queue; kept by the worker."""
        self.attempts_running = 0
        self.advancing = 0
        self.calls = 0
        """Steps that the code has called so far."""
        self.cancelled = False
        """Whether a cancellation has been delivered to the code."""
        self.first_cancel: FirstCancel | None = None
        self.cancel_taken_at = -math.inf
        """When the last request to cancel was taken; looks that began before may still have seen it."""
        self.aftermath: list[StepView] | None = None
        """Since a failure was delivered and no step called after it: what failed, or was cancelled by the code."""
        self.mailbox = Mailbox(claimed.signals)
        self.outgoing = WriteBuffer(self)
        """What is to be written to the journal."""
        self.order = Order(self.loop, claimed.events, max(self.history.max_seq, *claimed.cancellations, 0))
        """What waits to be delivered to the code."""
        self._waits = ParkedSteps(host, lambda: host.schedule(self))
        self.bodies: dict[asyncio.Task[Any] | None, ScopeView] = {}
        """The innermost body that each task runs."""
        self.crossings = RunCrossings(self)
        """What it does to other workflows, and asks of them."""
        self._yielded: asyncio.Future[None] | None = None
        self.outcome: Outcome | None = None
        """How it leaves, once that has been handed over."""
        self._pumping = self._replaying = False
        """Whether a pump has ended in the middle of recorded results: code that diverges later in them must have done
        nothing.
        """
        self._until = 0.0
        """When this pump lets other runs go on."""
        self._at_once = self._rounds = 0
        """Results that the pump has given without a wait, since its last look at the time, and with one; -1: its time
        was over before.
        """
        self._starting: list[ActivityCall] = []
        self.cautious = self.outgoing.suspected
        """Whether attempts are recorded before they begin."""
        self.pausing = False
        """Whether it is to be paused, as far as this worker knows."""
        self.back_at: datetime | None = None
        """When it may be claimed again, once it has been handed back; None: at once."""
        self.leaving = self.halted = self._cut_off = False
        """Whether it is to be handed back in any case; whether nothing is delivered, for that reason or a pause."""
        self._root: asyncio.Task[Any] | None = None
        self.scope = Scope(self, None, "", 0, claimed.created_at)
        self.order.root = self.scope

    # Life

    def start(self, body: Callable[[Scope], Coroutine[Any, Any, Any]]) -> None:
        """Begin to execute the body that `body(scope)` gives; the worker pumps it next."""
        self._root = self.loop.begin(body(self.scope), self.claimed.name)
        self.scope.owner = self._root
        self.bodies[self._root] = self.scope
        replay_cancellations(self)
        self.host.schedule(self)

    def pump(self, now: float | None = None) -> None:
        """Bring the run to rest, called from a plain callback on a `stage`; `now` is the time on the monotonic clock,
        if it is known.
        """
        if self.closed or self.outcome is not None:
            return
        root = self._root
        assert root is not None
        self._pumping = True
        self._until = (time.monotonic() if now is None else now) + _SLICE
        self._rounds = 0
        if self._yielded is not None:
            yielded, self._yielded = self._yielded, None
            self.loop.thaw(yielded)
        try:
            if self._waits.fired and not self.halted:
                with offstage():
                    self._waits.catch_up()
            self.loop.drain(self._deliver_next)
            if self.order.late and self._rounds >= 0:
                self.order.place_late(self.place)
            if self.fatal is not None or root.done():
                with offstage():
                    self._end(root)
                return
        finally:
            self._pumping = False
        if self._rounds < 0:
            if self._cut_off and not self.loop.at_rest:
                with offstage():
                    self._replaying = True
                    self._rest()
                return
            self.host.schedule(self)
            self._replaying = self.order.replaying or not self.loop.at_rest
            if not self._replaying:
                self.outgoing.flush()
            return
        waits, crossings = self._waits, self.crossings
        if self.attempts_running and not (
            self.halted
            or self._replaying
            or self._yielded is not None
            or self.claimed.cancel_requested
            or waits.due_timeouts
            or waits.moments
            or waits.timer is not None
            or crossings.gathered
            or crossings.awaiting
            or self.cautious
        ):  # nearly every rest: activities go on, and there is nothing else to do
            if self._starting:
                starting, self._starting = self._starting, []
                for call in starting:
                    self.host.start_activity(call)
            outgoing = self.outgoing
            if outgoing.rows or outgoing.calls or outgoing.run_changes is not None:
                outgoing.flush()
        else:
            with offstage():
                self._rest()

    def _deliver_next(self) -> bool:
        """The code is at rest: deliver the next result to it, if there is one and this pump has time for it."""
        order, root = self.order, self._root
        outbox = order.outbox
        if not (order.recorded or order.ends or (outbox and outbox[0].committed)):
            return False  # nothing is due; asked after each result, and so without a call
        if self.fatal is not None or self.halted or self.loop.frozen:
            return False
        if root is not None and root.done():
            return order.deliver_passed()  # turns that had begun when the code ended get to see its end
        if not order.deliver_next():
            return False
        self._rounds += 1
        if self._rounds % 64 == 0 or self._at_once >= BETWEEN_LOOKS:
            self._at_once = 0
            if time.monotonic() > self._until:
                self._rounds = -1
                return False
        return True

    def out_of_time(self) -> bool:
        """Whether this pump has to leave the code for now, though it could go on, because other runs wait."""
        if time.monotonic() <= self._until:
            return False
        self._rounds = -1
        return True

    def fail_by_engine(self, error: BaseException) -> None:
        """Fail the workflow with an error of the engine's own that has left a pump; it writes no event.

        Raises:
            BaseException: the same error; the run cannot end any more, since its outcome is on its way or it has left
                memory.
        """
        if self.closed or self.outcome is not None or self._root is None:
            raise error
        self.fatal = engine_failure(self, error)
        self._end(self._root)

    def receive(self, arrived: Arrived) -> bool:
        """Take news from outside; False if earlier news was missed, which has to be read first."""
        return receive(self, arrived)

    def resume(self, claimed: Claimed) -> None:
        """Go on after a sleep that was spent in memory: nobody has had the workflow meanwhile."""
        claimed.input, claimed.events = self.claimed.input, self.claimed.events
        self.claimed = claimed
        self.cautious = self.outgoing.suspected = claimed.suspicions > 0
        self.mailbox = Mailbox(claimed.signals)
        self.outcome = None
        self.pausing = self.halted = False
        self.finish_together([self._waits.wake_due, self.offer_signals])

    def stop(self) -> None:
        """Deliver nothing more, let running activities end, then hand the workflow back."""
        self.leaving = self.halted = True
        self.host.schedule(self)

    def give_up_attempts(self) -> None:
        """Cancel the activities in flight (the grace period is over), and wait for no code; the workflow is handed
        back.
        """
        self._cut_off = True
        for step in self.scope.all_unfinished():
            step.give_up()
        self.stop()

    def discard(self) -> None:
        """Leave memory: no write, no step, no user code after this."""
        if self.closed:
            return
        self.closed = True
        self._waits.cancel_timer()
        self.scope.stop()
        self.loop.discard()
        if not (self.attempts_running or self.advancing or self.crossings.in_flight):
            self._forget_steps()

    def _forget_steps(self) -> None:
        """Free what nothing will ask for any more: its parts refer back to this run, and the garbage collector finds
        such cycles late.
        """
        self.scope.forget_steps()
        self.loop.order = None
        del self.scope, self.loop, self.crossings, self.order, self.bodies, self.outgoing, self._waits, self._root

    @property
    def results(self) -> int:
        """The place of the last result that the code has received."""
        return self.order.passed

    @property
    def ended(self) -> bool:
        """Whether the code has returned or raised; what it left behind may go on for a moment."""
        return self._root is None or self._root.done()

    def lost(self, error: BaseException) -> None:
        """A write was refused: leave memory, or fail the workflow if its own data is to blame."""
        if self.closed:
            return
        if isinstance(error, LeaseLost):
            log.warning("%s left this worker: %s", self.label, error, extra=fields_of(self.claimed))
            self.leave()
            return
        log.error("%s: the database refused its rows: %s", self.label, error, extra=fields_of(self.claimed))
        self.outgoing.drop()
        self._write_outcome(Failed(encode_error(error)))

    def leave(self) -> None:
        """Leave memory without an outcome: the lease is lost, or nothing can be stored."""
        self.discard()
        self.host.finished(self, None)

    def left(self, outcome: Outcome) -> None:
        """The outcome is committed: leave memory, or stay there asleep."""
        if isinstance(outcome, Failed):
            log_failed_workflow(self.claimed, outcome.error)
        if not isinstance(outcome, Suspended) or not self.host.keep(self):
            self.discard()
        self.host.finished(self, outcome)

    def schedule(self) -> None:
        """Have the worker pump this run in a later callback."""
        self.host.schedule(self)

    # Resting

    def _rest(self) -> None:
        if self.halted and (self._replaying or self.claimed.crashes):
            self.give_up_attempts()  # none of them has begun
            self.outgoing.drop()
            self._starting, self.claimed.crashes = [], ()
        self._replaying = False
        starting, self._starting = self._starting, []
        begin(self, starting)
        if self.fatal is not None:  # it ends with that next, and asks nothing of other workflows before
            return
        if self.halted:
            self._hand_back_when_idle()
            return
        if not self.loop.frozen:
            crossings, waits = self.crossings, self._waits
            if waits.due_timeouts:
                waits.fire_timeouts(self.order, crossings)
            if self.claimed.cancel_requested and not (
                self.order.on_their_way or crossings.in_flight or self.order.holds_back()
            ):
                deliver_cancellation(self)
            if crossings.gathered or crossings.awaiting:
                crossings.hand_over(waits.overdue)
        if self._yielded is not None:
            self.host.schedule(self)
        waiting = (
            self.attempts_running
            or self.advancing
            or self._waits.short
            or self.order.on_their_way
            or self.outgoing.awaited
            or self.outgoing.calls_in_flight
            or self.loop.frozen
            or self.crossings.busy
        )
        if not waiting:
            if self.order.replaying and self.order.holds_back():
                tell_what_holds_back(
                    self.label, fields_of(self.claimed), self.order.uncalled, [late[0] for late in self.order.late]
                )
            outcome = self._waits.suspension(self.claimed.mailbox) if self._waits.parked else stuck(self)
            if self.fatal is None:  # otherwise one of the rows that it sleeps on was one too many
                self._write_outcome(outcome)
            return
        if self._waits.moments or self._waits.timer is not None:
            self._waits.set_timer()
        self.outgoing.flush()

    def _hand_back_when_idle(self) -> None:
        if self.attempts_running or self.advancing or self.crossings.in_flight or self.outgoing.alone:
            self.outgoing.flush()
        else:
            self._write_outcome(Released(self.back_at))

    def offer_signals(self) -> None:
        """Give the signals that are here to those who listen for them, the lowest location first."""
        if self.mailbox:
            for step in self._waits.listening():
                step.offer()

    # Ending

    def _write_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._waits.cancel_timer()
        self.outgoing.flush(outcome)

    def _end(self, root: asyncio.Task[Any]) -> None:
        if isinstance(self.fatal, LeaseLost):
            self.lost(self.fatal)
            return
        if self.fatal is not None:
            self.outgoing.drop()  # what this pump has gathered is not written, nor handed over
        if self.advancing or self.crossings.in_flight:
            # The lease is kept until that is done, which schedules this run again.
            self.outgoing.flush()
        else:
            self._write_outcome(outcome_of(self, root))
