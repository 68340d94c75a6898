"""The step that runs an activity, over all its attempts.

An attempt that fails and will be repeated is recorded (attempts, error, when the next is due) before the next begins.

With a `total_timeout` there is a pending row before the first attempt: it says from when on that counts, in
`loop_state`, which only loops need otherwise. Retry and fork leave a row with no attempt and nothing due: then it
counts anew. So it does when a process dies of a first attempt whose beginning was recorded, as those of suspects are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pgflow.codec import decode_error, encode_error
from pgflow.definitions.retry import LONGEST_DELAY, seconds
from pgflow.errors import ActivityFailed, LeaseLost
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.activities.activity_context import ActivityContext
from pgflow.execution.activities.state import Changes
from pgflow.execution.engine.held_back import ahead
from pgflow.execution.engine.host import Timer
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.recorded_arguments import compare
from pgflow.execution.engine.step import Step
from pgflow.history.events import (
    KIND_ACTIVITY,
    STATUS_CANCELLED,
    STATUS_COMPLETED,
    STATUS_FAILED,
    STATUS_PENDING,
    Event,
)
from pgflow.history.location import display
from pgflow.model.moments import after
from pgflow.model.rows import EventRow
from pgflow.model.writes import RunChanges, Write
from pgflow.observe.log_records import fields_of, log_failed_attempt

if TYPE_CHECKING:
    from pgflow.definitions.descriptors import Activity


class ActivityStep(Step):
    """`ctx.activity(fn, ...)`: one activity, over all its attempts."""

    kind = KIND_ACTIVITY
    __slots__ = ("_activity", "_call", "_details", "_failure", "_overdue", "_since")

    def __init__(
        self,
        scope: ScopeView,
        version: int,
        activity: Activity[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._activity = activity
        self._call: ActivityCall | None = None
        self._details: str | None = None
        self._failure: str | None = None
        self._since: datetime | None = None
        """From when on `total_timeout` counts; None: nobody asked, or nothing has begun."""
        self._overdue: Timer | None = None
        """Ends the attempt when all of them have taken too long."""
        # Arguments that do not fit must not use up a location; a replayed step does not need them at all.
        given: str | None = None
        cursor = scope.cursor
        met = None if cursor.exhausted else cursor.meets(self.kind, activity.name, version)
        if met is None or met.status == STATUS_PENDING:
            given, met = activity.encode_arguments(args, kwargs, scope.run.limits.payload), None
        super().__init__(scope, activity.name, version, met)
        self.input = given
        if self.event is not None and scope.run.limits.other_arguments is not None:
            compare(
                self,
                lambda: (
                    given if given is not None else activity.encode_arguments(args, kwargs, scope.run.limits.payload)
                ),
                activity.meaning_of,
            )

    def start(self) -> None:
        event = self.event
        total = self._activity.total_timeout
        if event is not None:
            run = self.scope.run
            self._details, self._failure = event.output, event.error
            if total is not None:
                self._since = _counts_from(event)
            if event.wake_at is not None and event.wake_at > run.host.now():
                run.park(self, event.wake_at)
                return
        if total is not None and self._since is None:
            self._since = self.wake_at = self.scope.run.host.now()
            self.scope.record(self, self.pending_row())
            self.due()
        else:
            self._run_attempt()

    def due(self) -> None:
        # What the last attempt left must be durable before the next one begins.
        self.scope.run.after_commit(self._run_attempt)

    def stop(self) -> None:
        call = self._call
        if call is not None:
            call.cancel()
            self._end_call(call)

    def give_up(self) -> None:
        call = self._call
        if call is None:
            return
        began = call.record_first and self.wake_at is None
        self.stop()
        if began:  # otherwise the next death, before another attempt, would be counted as a failed attempt of this step
            self.wake_at = self.scope.run.host.now()
        if began or self._details is not None:
            self.scope.record(self, self.pending_row())

    def pending_row(self) -> EventRow:
        row = self.row(STATUS_PENDING, output=self._details, error=self._failure, wake_at=self.wake_at)
        return row if self._since is None else row._replace(loop_state=f'"{self._since.isoformat()}"')

    def _run_attempt(self) -> None:
        run = self.scope.run
        if self.settled or self.finished or run.closed or run.outcome is not None:
            return
        until = None if self._since is None else self._until  # few ask for it, and all come by here
        if until is not None and until <= run.host.now():
            self._failed_at_last(self._too_long())
            return
        run.attempts_running += 1
        limit = run.limits.payload
        context = ActivityContext(
            self.location,
            run.claimed.workflow_id,
            self.name,
            self.attempts + 1,
            run.outgoing.activity_state.text,
            self._details,
            limit,
            (self._activity.fn, run.claimed.name),
            run.claimed.rewinds,
        )
        if self.attempts and self._on_last_attempt:
            run.cautious = True
        assert self.input is not None
        self._call = ActivityCall(
            self._activity,
            context,
            self.input,
            limit,
            self,
        )
        if until is not None:
            call = self._call
            self._overdue = run.host.call_at(until, lambda: self._cut_off(call))
        run.start_attempt(self._call)

    @property
    def _until(self) -> datetime | None:
        """Until when all attempts have to end."""
        total = self._activity.total_timeout
        return None if total is None or self._since is None else after(self._since, timedelta(seconds=total))

    def _too_long(self, waited: bool = False) -> TimeoutError:
        said = f'activity "{self.name}" did not end within its total_timeout of {self._activity.total_timeout:g} s'
        if self._failure is not None:
            last = decode_error(self._failure)
            said += f"; the last attempt that ended failed by {last.get('type')}: {last.get('message')}"
        return TimeoutError(said + ("; another one waited for a place" if waited else ""))

    def _cut_off(self, call: ActivityCall) -> None:
        """The moment has come by which all attempts had to end."""
        run = self.scope.run
        if self._call is not call or self.settled or self.finished or run.closed or run.outcome is not None:
            return
        call.context.end("its total_timeout has passed")
        begun = call.task is not None
        call.cancel()
        self._end_call(call)
        self.attempts += begun
        self._failed_at_last(self._too_long(waited=not begun))

    def _end_call(self, call: ActivityCall) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._call = None
        self._details = call.context.last_details
        self.scope.run.attempts_running -= 1

    def attempt_progressed(self, details: str) -> None:
        """An attempt has reported its progress: record it in the step's pending row."""
        run = self.scope.run
        if self._call is None or run.closed or run.outcome is not None:
            return
        self._details = details
        self.scope.record(self, self.pending_row())
        run.flush_soon()

    def attempt_ended(self, output: str | None, error: BaseException | None) -> None:
        """An attempt has ended: it is recorded, or another one follows."""
        call, run = self._call, self.scope.run
        assert call is not None
        # `_end_call`, inlined: every live step passes here.
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        self._call = None
        self._details = call.context.last_details
        run.attempts_running -= 1
        if self.settled or self.finished or run.closed or run.outcome is not None:
            return
        self.attempts += 1
        if error is None:
            try:
                changes = call.context.changes()
                if changes is not None:
                    run.outgoing.activity_state.check(changes, call.limit)
            except BaseException as refused:  # keys and values are the application's: whatever they raise
                error = refused
            else:
                if changes is not None:
                    run.outgoing.activity_state.gather(changes)
                run.finish(self, STATUS_COMPLETED, output=output)
                return
        self._failed(error)

    @property
    def _on_last_attempt(self) -> bool:
        """Whether the next attempt is the last of several: it is recorded before it begins."""
        return 0 < self.attempts == self._activity.retry.max_attempts - 1

    def was_under_way(self, at: datetime, recorded: bool) -> bool:
        """Whether an attempt was under way when a process died.

        A row that says when the next attempt is due also says that it had not begun by then.
        """
        event = self.event
        if recorded or self._on_last_attempt:
            return event is not None and event.wake_at is None
        return event is None or event.wake_at is None or event.wake_at <= at

    def attempt_died(self, error: BaseException, at: datetime) -> None:
        """An attempt has ended with its process: record that; another one follows, or none."""
        call = self._call
        assert call is not None
        self._end_call(call)
        self.attempts += 1
        self._failed(error, at)

    def record_first(self) -> None:
        """The attempt is to be recorded before it begins; until then its row, if it gets one, says that it is due."""
        assert self._call is not None
        self._call.record_first = True
        self.wake_at = self.scope.run.host.now()

    def record_beginning(self, begin: Callable[[], None]) -> None:
        """Record that an attempt begins; call `begin` once that is committed."""
        run = self.scope.run
        if self._call is None or run.closed or run.outcome is not None:
            return
        self.wake_at = None
        self.scope.record(self, self.pending_row())
        run.after_commit(begin)

    def attempt_ready(self, output: str, go: Callable[[Write], None]) -> None:
        """A transactional attempt has returned: its write is next, alone, after all that comes before it.

        Raises:
            SerializationError: what it leaves with the workflow cannot be stored.
        """
        call, run = self._call, self.scope.run
        assert call is not None
        changes = call.context.changes()
        if changes is not None:
            run.outgoing.activity_state.check(changes, call.limit)
        self.scope.record_before(self)
        run.write_alone(lambda: self._commit(call, output, changes, go))

    def _commit(
        self,
        call: ActivityCall,
        output: str,
        changes: Changes | None,
        go: Callable[[Write], None],
    ) -> None:
        run = self.scope.run
        if call.cancelled or run.closed:
            run.written_alone(new=False)
            return
        call.committing = True
        self._end_call(call)  # too late to stop it
        self.attempts += 1
        delivery = run.reserve(self, lambda at: self.deliver(STATUS_COMPLETED, output, None, at))
        row = self.scope.row_alone(ahead(self.row(STATUS_COMPLETED, delivery.seq, output), delivery.ahead, self.scope))
        state = tags = None
        if changes is not None:
            state, tags = run.outgoing.activity_state.texts(changes)
            run.outgoing.activity_state.gather(changes)

        def committed(write: Write, at: datetime) -> None:
            run.host.observe_time(at)
            if run.closed:  # the worker that has the workflow now finds the row
                return
            delivery.committed, delivery.at = True, at
            run.outgoing.witness = (row.location, row.status)
            run.outgoing.suspected = False
            new = not self.recorded
            self.scope.recorded_alone(self)
            if changes is not None:
                run.outgoing.activity_state.hand_over(changes)
            run.written_alone(new)

        def refused(write: Write, error: BaseException) -> None:
            if isinstance(error, LeaseLost):
                run.lost(error)
            if run.closed:
                return
            run.order.withdraw(delivery)
            self.finished = False
            if changes is not None:
                run.outgoing.activity_state.drop(changes)
            if self.settled:  # the code has gone on without it
                self.scope.record(self, self.row(STATUS_CANCELLED))
            else:
                self._failed(error)
            run.written_alone(new=False)

        claimed = run.claimed
        run_changes = None if changes is None else RunChanges(state=state, tags=tags)
        if run.outgoing.suspected:
            run_changes = run_changes or RunChanges()
            run_changes.suspicion = "lifted"
        go(Write(claimed.run, [row], None, committed, refused, run_changes))

    def _failed(self, error: BaseException, died_at: datetime | None = None) -> None:
        """An attempt has failed, or its process had died then: another is due later, or this was the last."""
        run = self.scope.run
        if run.outgoing.suspected and died_at is None:
            run.outgoing.progress()
        try:
            delay = self._delay(error)
        except (
            BaseException
        ) as refused:  # a policy's class may be the application's, and so may what compares its classes
            error, delay = refused, None
        if delay is None:
            self._failed_at_last(error)
            return
        due = run.host.later(delay) if died_at is None else died_at + timedelta(seconds=delay)
        self._failure = encode_error(error)
        until = self._until
        if until is not None and due >= until:
            late = self._too_long()
            late.__cause__ = error
            self._failed_at_last(late)
            return
        self._log_failure(self._failure, due)
        run.host.attempt_failed(self.name, True)
        run.park(self, due)
        self.scope.record(self, self.pending_row())
        run.flush_soon()

    def _failed_at_last(self, error: BaseException) -> None:
        """No attempt follows."""
        run = self.scope.run
        self._failure = encode_error(error)
        self._log_failure(self._failure, None)
        run.host.attempt_failed(self.name, False)
        run.finish(self, STATUS_FAILED, error=self._failure)

    def _log_failure(self, error: str, due: datetime | None) -> None:
        fields = fields_of(
            self.scope.run.claimed, location=display(self.location), activity=self.name, attempt=self.attempts
        )
        when = None if due is None else f"at {due.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"
        log_failed_attempt(fields, error, self._activity.retry.max_attempts, when)

    def _delay(self, error: BaseException) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        policy = self._activity.retry
        delay = policy.delay(self.attempts, random.random()) if policy.retries(error) else None
        return None if delay is None else seconds(delay, f"the delay of {policy!r}", LONGEST_DELAY)

    def result(self, status: str, output: str | None, error: str | None) -> Any:
        if status == STATUS_COMPLETED:
            return self._activity.decode_result(output or "null")
        recorded = decode_error(error or "{}")
        raise ActivityFailed(
            f'activity "{self.name}" at {display(self.location)} failed after {self.attempts} '
            f"attempt{'s' if self.attempts != 1 else ''}: {recorded.get('type')}: {recorded.get('message')}",
            activity=self.name,
            attempts=self.attempts,
            error_type=str(recorded.get("type")),
            error_message=str(recorded.get("message")),
            location=display(self.location),
        )


def _counts_from(event: Event) -> datetime | None:
    """From when on the `total_timeout` of a pending step counts; None: it is to begin."""
    if event.loop_state is None or (event.attempts == 0 and event.wake_at is None):
        return None
    return datetime.fromisoformat(json.loads(event.loop_state))
