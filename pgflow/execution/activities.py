"""Activities: the step that asks for one, and the execution of its attempts on the worker's own event loop.

An attempt that fails and will be repeated is recorded (attempts, error, when the next is due) before the next begins.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

from pgflow.codec import decode_error, encode_error
from pgflow.errors import ActivityFailed, SerializationError
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


class ActivityContext:
    """What an activity knows of the attempt that it is.

    Attributes:
        id: the activity's id, the same for all its attempts.
        workflow_id: the workflow that called it.
        name: the activity's name.
        attempt: which attempt this is, from 1.
        idempotency_key: a text that is the same for all attempts of this step and for no other step; hand it to
            services that refuse to do the same thing twice.
    """

    __slots__ = ("attempt", "id", "name", "workflow_id")

    def __init__(self, id: uuid.UUID, workflow_id: uuid.UUID, name: str, attempt: int) -> None:
        self.id = id
        self.workflow_id = workflow_id
        self.name = name
        self.attempt = attempt

    @property
    def idempotency_key(self) -> str:
        """Stable across attempts, restarts and workers."""
        return str(self.id)


class ActivityCall:
    """One attempt: what to run, and whom to tell.

    Parameters:
        on_done: called once on the worker's loop with the encoded output or the error, unless the call was cancelled.
    """

    __slots__ = ("activity", "cancelled", "context", "input", "label", "limit", "on_done", "task")

    def __init__(
        self,
        activity: Activity[Any, Any],
        context: ActivityContext,
        input: str,
        label: str,
        limit: int,
        on_done: Callable[[str | None, BaseException | None], None],
    ) -> None:
        self.activity = activity
        self.context = context
        self.input = input
        self.label = label
        self.limit = limit
        self.on_done = on_done
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Nobody wants the result any more: an async activity is cancelled, a thread's result is dropped."""
        self.cancelled = True
        if self.task is not None:
            self.task.cancel()


class ActivityRunner:
    """Runs attempts: async ones as tasks, plain functions in threads; so many at once, the others wait their turn.

    Parameters:
        executor: the threads of plain functions.
        limit: how many attempts run at once.
    """

    def __init__(self, executor: Executor, limit: int) -> None:
        self._executor = executor
        self._limit = limit
        self._waiting: deque[ActivityCall] = deque()
        self.running = 0

    def start(self, call: ActivityCall) -> None:
        """Run an attempt, now or when one of those running has ended."""
        if self.running >= self._limit:
            self._waiting.append(call)
        else:
            self._run(call)

    def _run(self, call: ActivityCall) -> None:
        self.running += 1
        call.task = asyncio.get_running_loop().create_task(
            self._attempt(call), name=f"activity {call.activity.name}"
        )

    async def _attempt(self, call: ActivityCall) -> None:
        output: str | None = None
        failure: BaseException | None = None
        try:
            output = await self._execute(call)
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            # SystemExit from an activity is a failure of the activity, not an order to the worker.
            failure = error
        finally:
            self.running -= 1
            while self._waiting and self.running < self._limit:
                following = self._waiting.popleft()
                if not following.cancelled:
                    self._run(following)
        if not call.cancelled:
            call.on_done(output, failure)

    async def _execute(self, call: ActivityCall) -> str:
        activity = call.activity
        args, kwargs = activity.decode_arguments(call.input)
        deadline = asyncio.timeout(activity.timeout)
        try:
            async with deadline:
                if activity.is_async:
                    value = await activity.fn(call.context, *args, **kwargs)
                else:
                    context = contextvars.copy_context()
                    value = await asyncio.get_running_loop().run_in_executor(
                        self._executor, lambda: context.run(activity.fn, call.context, *args, **kwargs)
                    )
        except TimeoutError as error:
            if deadline.expired():
                raise TimeoutError(
                    f'activity "{activity.name}" did not end within its timeout of {activity.timeout:g} s'
                ) from error
            raise
        return activity.encode_result(value, call.limit)


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
