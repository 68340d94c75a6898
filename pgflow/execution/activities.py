"""The step that asks for an activity, over all its attempts.

An attempt that fails and will be repeated is recorded (attempts, error, when the next is due) before the next begins.
"""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Any

from pgflow.codec import decode_error, encode_error
from pgflow.errors import ActivityFailed, SerializationError
from pgflow.execution.attempts import ActivityCall, ActivityContext
from pgflow.execution.scope import Scope
from pgflow.execution.step import Step
from pgflow.history.events import (
    KIND_ACTIVITY,
    STATUS_COMPLETED,
    STATUS_FAILED,
    STATUS_PENDING,
)
from pgflow.history.location import display

if TYPE_CHECKING:
    from pgflow.definitions import Activity


class ActivityStep(Step):
    """`ctx.activity(fn, ...)`: one activity, over all its attempts."""

    kind = KIND_ACTIVITY
    __slots__ = ("_activity", "_call")

    def __init__(
        self,
        scope: Scope,
        version: int,
        activity: Activity[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._activity = activity
        self._call: ActivityCall | None = None
        # Arguments that do not fit must not use up a location; a replayed step does not need them at all.
        limit = scope.run.host.limits.payload
        given = activity.encode_arguments(args, kwargs, limit) if scope.cursor.exhausted else None
        super().__init__(scope, activity.name, version)
        if given is None and not self.has_ended_row:
            given = activity.encode_arguments(args, kwargs, limit)
        self.input = given

    def start(self) -> None:
        event = self.event
        run = self.scope.run
        if event is not None and event.wake_at is not None and event.wake_at > run.host.now():
            run.park(self, event.wake_at)
        else:
            self._run_attempt()

    def due(self) -> None:
        # What the last attempt left must be durable before the next one begins.
        self.scope.run.after_commit(self._run_attempt)

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
            self.scope.run.attempts_running -= 1

    def _run_attempt(self) -> None:
        run = self.scope.run
        if self.settled or self.finished or run.closed:
            return
        run.attempts_running += 1
        context = ActivityContext(
            uuid.uuid5(run.claimed.workflow_id, self.location),
            run.claimed.workflow_id,
            self.name,
            self.attempts + 1,
        )
        assert self.input is not None
        self._call = ActivityCall(
            self._activity, context, self.input, str(self), run.host.limits.payload, self._done
        )
        run.host.start_activity(self._call)

    def _done(self, output: str | None, error: BaseException | None) -> None:
        run = self.scope.run
        self._call = None
        run.attempts_running -= 1
        if self.settled or self.finished or run.closed:
            return
        self.attempts += 1
        if error is None:
            run.finish(self, STATUS_COMPLETED, output=output)
            return
        policy = self._activity.retry
        again = not isinstance(error, SerializationError) and policy.retries(error)
        delay = policy.delay(self.attempts, random.random()) if again else None
        described = encode_error(error)
        if delay is None:
            run.finish(self, STATUS_FAILED, error=described)
            return
        wake_at = run.host.later(delay)
        run.park(self, wake_at)
        self.scope.record(self, self.row(STATUS_PENDING, error=described, wake_at=wake_at))
        run.flush_soon()

    def result(self, status: str, output: str | None, error: str | None) -> Any:
        if status == STATUS_COMPLETED:
            return self._activity.decode_result(output or "null")
        told = decode_error(error or "{}")
        raise ActivityFailed(
            f'activity "{self.name}" at {display(self.location)} failed after {self.attempts} '
            f"attempt{'s' if self.attempts != 1 else ''}: {told.get('type')}: {told.get('message')}",
            activity=self.name,
            attempts=self.attempts,
            error_type=str(told.get("type")),
            error_message=str(told.get("message")),
            location=display(self.location),
        )
