"""Attempts: the execution of activities on the worker's own event loop and in its threads, so many at once.

An attempt knows nothing of history; it tells whoever asked for it what came of it.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgflow.definitions import Activity

log = logging.getLogger("pgflow.execution")


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


class _Lane:
    """A bounded number of places, and who waits for one."""

    __slots__ = ("free", "waiting")

    def __init__(self, places: int) -> None:
        self.free = places
        self.waiting: deque[ActivityCall] = deque()


class ActivityRunner:
    """Runs attempts: async ones as tasks, plain functions in threads; so many at once, the others wait their turn.

    The time in which an attempt waits for its turn does not count towards its timeout. A thread whose result nobody
    wants any more (a timeout, a cancellation) keeps its place until it ends.

    Parameters:
        executor: the threads of plain functions.
        tasks: how many async attempts run at once.
        threads: how many plain functions run at once.
    """

    def __init__(self, executor: Executor, tasks: int, threads: int) -> None:
        self._loop = asyncio.get_running_loop()  # not the run's own, on which `start` is often called
        self._executor = executor
        self._lanes = {True: _Lane(tasks), False: _Lane(threads)}
        self._paused = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def running(self) -> int:
        """Attempts that run at the moment."""
        return len(self._tasks)

    def start(self, call: ActivityCall) -> None:
        """Run an attempt, now or when it is its turn."""
        lane = self._lanes[call.activity.is_async]
        lane.waiting.append(call)
        self._next(lane)

    def pause(self) -> None:
        """Begin no more attempts until `resume`: what they would record has nowhere to go yet."""
        self._paused = True

    def resume(self) -> None:
        """Begin attempts again."""
        if self._paused:
            self._paused = False
            for lane in self._lanes.values():
                self._next(lane)

    def close(self) -> None:
        """Cancel what runs and begin nothing more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    def _next(self, lane: _Lane) -> None:
        while lane.free and lane.waiting and not self._paused and not self._closed:
            call = lane.waiting.popleft()
            if call.cancelled:
                continue
            lane.free -= 1
            task = self._loop.create_task(
                self._attempt(call, lane), name=f"activity {call.activity.name}"
            )
            call.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _freed(self, lane: _Lane) -> None:
        lane.free += 1
        self._next(lane)

    async def _attempt(self, call: ActivityCall, lane: _Lane) -> None:
        output: str | None = None
        failure: BaseException | None = None
        try:
            output = await self._execute(call, lane)
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            # SystemExit from an activity is a failure of the activity, not an order to the worker.
            failure = error
        finally:
            if call.activity.is_async:
                self._freed(lane)
        if not call.cancelled and not self._closed:
            call.on_done(output, failure)

    async def _execute(self, call: ActivityCall, lane: _Lane) -> str:
        activity = call.activity
        deadline = asyncio.timeout(activity.timeout)
        try:
            async with deadline:
                if activity.is_async:
                    args, kwargs = activity.decode_arguments(call.input)
                    value = await activity.fn(call.context, *args, **kwargs)
                else:
                    value = await self._in_thread(call, lane)
        except TimeoutError as error:
            if deadline.expired():
                raise TimeoutError(
                    f'activity "{activity.name}" did not end within its timeout of {activity.timeout:g} s'
                ) from error
            raise
        return activity.encode_result(value, call.limit)

    async def _in_thread(self, call: ActivityCall, lane: _Lane) -> Any:
        loop, context = self._loop, contextvars.copy_context()

        def ended(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._freed, lane)

        try:
            args, kwargs = call.activity.decode_arguments(call.input)
            work = self._executor.submit(
                context.run, call.activity.fn, call.context, *args, **kwargs
            )
        except BaseException:
            self._freed(lane)
            raise
        work.add_done_callback(ended)
        return await asyncio.wrap_future(work)
