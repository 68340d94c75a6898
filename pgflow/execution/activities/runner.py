"""Attempts: the execution of activities on the worker's own event loop and in its threads, a bounded number at once.

An attempt knows nothing of history; it hands its result to the step that asked for it. A transactional one commits by
itself (`transactional.py`).
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import math
import time
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from pgflow.codec import traceback_of
from pgflow.errors import SerializationError
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.activities.heartbeats import Silence
from pgflow.execution.activities.resources import NO_RESOURCES, Resources
from pgflow.execution.activities.transactional import perform
from pgflow.execution.event_loop.stage import offstage
from pgflow.ports import TransactionsPort

if TYPE_CHECKING:
    from pgflow.definitions.descriptors import Activity

log = logging.getLogger("pgflow.execution")

UNTRUSTED_PAUSE = 0.05
"""Seconds after which an attempt that may not begin asks again."""

_GoingOn = tuple[float, Awaitable[Any]]
"""When an attempt began, on the loop's clock, and what is left of it."""

_ABSENT = object()
"""In place of a context variable that is not set."""

SLICE = 0.005
"""Seconds of attempts that one task may run, one after the other, before the loop gets a turn."""


class _Slots:
    """A bounded number of places, and the calls that wait for one.

    Args:
        brief: whether what runs here may end without ever waiting.
    """

    __slots__ = ("brief", "free", "standby", "waiting")

    def __init__(self, places: int, brief: bool = False) -> None:
        self.free = places
        self.brief = brief
        self.waiting: deque[ActivityCall] = deque()
        self.standby = False
        """Whether a task has been made that will take the next call and has not begun."""


class ActivityRunner:
    """Runs attempts: async ones as tasks, plain functions in threads; a bounded number at once, the others wait their
    turn.

    The time in which an attempt waits for its turn does not count towards its timeout. A thread whose result nobody
    wants any more (a timeout, a cancellation) keeps its place until it ends.

    Making a task and a timer costs more than what many activities do. So a timer is made when an activity first waits,
    and a task whose attempt has ended without waiting takes the next call, unless the attempt has left a trace in it.

    Args:
        executor: the threads of plain functions.
        tasks: how many async attempts run at once.
        threads: how many plain functions run at once.
        transactions: where transactional ones get their transactions.
        places: how many transactional ones run at once, of either sort.
        trusted_until: until when, on the monotonic clock, attempts may begin: so long the lease is this worker's.
        on_death: called when an attempt has ended and its run could not get the result, by an error of the engine's
            own: the run would wait for ever.
        resources: what activities of this process share.
    """

    def __init__(
        self,
        executor: Executor,
        tasks: int,
        threads: int,
        transactions: TransactionsPort,
        places: int,
        trusted_until: Callable[[], float] = lambda: math.inf,
        on_death: Callable[[BaseException], None] = lambda error: None,
        resources: Resources = NO_RESOURCES,
    ) -> None:
        self._resources = resources
        self._loop = asyncio.get_running_loop()  # the worker's loop, not the run's, on which `start` is often called
        self._context = contextvars.copy_context()  # nor that of the workflow whose code asks
        self._variables = tuple(self._context.items())
        self._executor = executor
        self._trusted_until = trusted_until
        self._on_death = on_death
        self._transactions = transactions
        self._lanes = {True: _Slots(tasks, brief=True), False: _Slots(threads), None: _Slots(places)}
        self._paused = False
        self._calls: dict[asyncio.Task[None], ActivityCall] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def running(self) -> int:
        """Attempts that are running."""
        return len(self._calls)

    @property
    def waiting(self) -> int:
        """Attempts that wait for a place."""
        return sum([len(lane.waiting) for lane in self._lanes.values()])

    def start(self, call: ActivityCall) -> None:
        """Run an attempt, now or when it is its turn."""
        activity = call.activity
        lane = self._lanes[None if activity.transactional else activity.is_async]
        lane.waiting.append(call)
        if not lane.standby:
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
        for call in self._calls.values():
            if not call.cancelled:  # a cancelled one may be cleaning up
                call.cancel()

    async def ended(self, seconds: float) -> list[str]:
        """After `close`: wait until the attempts have ended, `seconds` at most. Returns those that have not, as text;
        threads are not waited for.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        return [call.label for call in self._calls.values()]

    def _next(self, lane: _Slots) -> None:
        """Make sure that a task is about to take the next call, if there is one and a place for it."""
        if lane.free and lane.waiting and not (lane.standby or self._paused or self._closed):
            lane.standby = True
            with offstage():  # a task factory may let it begin at once
                task = self._loop.create_task(self._serve(lane), name="pgflow activities", context=self._context.copy())
            self._tasks.add(task)
            task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("the result of an attempt could not be handed to its workflow\n%s", traceback_of(error))
            self._on_death(error)

    def _freed(self, lane: _Slots) -> None:
        lane.free += 1
        self._next(lane)

    async def _serve(self, lane: _Slots) -> None:
        """Run one attempt after the other in this task, until one has waited or left a trace in it."""
        task = asyncio.current_task()
        assert task is not None
        now = time.monotonic()
        until = min(now + SLICE, self._trusted_until())
        lane.standby = False
        at_once = lane.brief and now < until
        while lane.free and lane.waiting and not (self._paused or self._closed):
            call = lane.waiting.popleft()
            if call.cancelled:
                continue
            going_on: _GoingOn | None = None
            if at_once and not call.record_first:
                going_on = self._begin_and_tell(call, now)
                if going_on is None:
                    now = time.monotonic()
                    if now >= until or task.cancelling() or self._left_a_trace():
                        break
                    continue
            lane.free -= 1
            self._next(lane)  # the others must not wait for this one
            call.task = task
            self._calls[task] = call
            try:
                await self._attempt(call, lane, going_on)
            finally:
                del self._calls[task]
                call.task = None
            break
        self._next(lane)

    def _left_a_trace(self) -> bool:
        """Whether an attempt has set context variables in this task, which the next one must not see."""
        now, before = contextvars.copy_context(), self._variables
        if len(now) != len(before):
            return True
        for name, value in before:
            if now.get(name, _ABSENT) is not value:
                return True
        return False

    def _begin_and_tell(self, call: ActivityCall, now: float) -> _GoingOn | None:
        """Run an async attempt up to where it first waits; one that has ended by then is reported, and took no place.

        Args:
            now: the time of `time.monotonic()`.
        """
        output: str | None = None
        failure: BaseException | None = None
        activity = call.activity
        call.context.attach(self._loop, call.caller.attempt_progressed, self._resources)
        try:
            args, kwargs = activity.decode_arguments(call.input)
            code = activity.code(call.context, *args, **kwargs)
            if type(code) is not types.CoroutineType:
                code = awaited(code, activity)
            try:
                first = code.send(None)
            except StopIteration as end:
                value = end.value
            else:
                return self._loop.time() - (time.monotonic() - now), _go_on(code, first)
            output = activity.encode_result(value, call.limit)
        except BaseException as error:  # noqa: BLE001 — it is reported; SystemExit from an activity is no order to the worker
            failure = error
        call.context.end("it has ended")
        try:
            if not call.cancelled and not self._closed:
                call.caller.attempt_ended(output, failure)
        finally:
            del failure  # its traceback holds this frame
        return None

    async def _attempt(self, call: ActivityCall, lane: _Slots, going_on: _GoingOn | None) -> None:
        """Run an attempt that waits, or may have to."""
        output: str | None = None
        failure: BaseException | None = None
        try:
            if going_on is not None:
                output = await self._finished(call, going_on)
            else:
                if call.record_first:
                    recorded = asyncio.Event()
                    call.caller.record_beginning(recorded.set)
                    await recorded.wait()
                call.context.attach(self._loop, call.caller.attempt_progressed, self._resources)
                while time.monotonic() >= self._trusted_until():
                    # A process that was stopped for long finds answers from before: what they lead to, others have
                    # done.
                    await asyncio.sleep(UNTRUSTED_PAUSE)
                if call.activity.transactional:
                    await perform(call, self._transactions, self._execute)
                else:
                    output = await self._execute(call)
        except BaseException as error:  # noqa: BLE001 — it is reported
            if type(error) is GeneratorExit and (error.__traceback__ is None or error.__traceback__.tb_next is None):
                raise  # thrown right here, and not by the activity: the event loop is being taken apart
            failure = error
        finally:
            self._free(lane, call.work)
        try:
            self._tell(call, output, failure)
        finally:
            del failure  # its traceback holds this frame

    def _tell(self, call: ActivityCall, output: str | None, failure: BaseException | None) -> None:
        """The attempt has ended: hand its result to the step."""
        call.context.end("it has ended")
        if call.committing:
            if failure is not None:
                log.error("the result of %s could not be handed to its workflow\n%s", call.label, traceback_of(failure))
        elif not call.cancelled and not self._closed:
            call.caller.attempt_ended(output, failure)

    def _free(self, lane: _Slots, work: Future[Any] | None) -> None:
        """Free a place: now, or when the thread has ended that nobody waits for any more."""
        loop = self._loop

        def ended(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._freed, lane)

        if work is None or work.done():
            self._freed(lane)
        else:
            work.add_done_callback(ended)

    async def _execute(self, call: ActivityCall) -> str:
        """The encoded output of an attempt's code."""
        started, activity = self._loop.time(), call.activity
        if not activity.is_async:
            return await self._finished(call, (started, self._in_thread(call)))
        args, kwargs = activity.decode_arguments(call.input)
        code = activity.code(call.context, *args, **kwargs)
        if type(code) is not types.CoroutineType:
            code = awaited(code, activity)
        return await self._finished(call, (started, code))

    async def _finished(self, call: ActivityCall, going_on: _GoingOn) -> str:
        """The encoded output of an attempt that waits, within its timeout."""
        activity = call.activity
        started, code = going_on
        deadline = asyncio.timeout_at(None if activity.timeout is None else started + activity.timeout)
        silence: Silence | None = None
        try:
            async with deadline:
                if activity.heartbeat_timeout is not None:
                    silence = Silence(self._loop, activity.heartbeat_timeout, lambda: call.context.heard_at, deadline)
                value = await code
        except (
            TimeoutError,
            asyncio.CancelledError,
        ) as error:  # one or the other: a TaskGroup may leave its count of cancellations
            if silence is not None and silence.broken and deadline.expired():
                call.context.end(f"it has given no heartbeat for {activity.heartbeat_timeout:g} s")
                raise TimeoutError(
                    f'activity "{activity.name}" gave no heartbeat for {activity.heartbeat_timeout:g} s, its '
                    "heartbeat_timeout"
                ) from error
            if deadline.expired():
                call.context.end(f"its timeout of {activity.timeout:g} s has passed")
                raise TimeoutError(
                    f'activity "{activity.name}" did not end within its timeout of {activity.timeout:g} s'
                ) from error
            raise
        finally:
            if silence is not None:
                silence.stop()
        return activity.encode_result(value, call.limit)

    async def _in_thread(self, call: ActivityCall) -> Any:
        context = contextvars.copy_context()
        args, kwargs = call.activity.decode_arguments(call.input)
        call.work = self._executor.submit(context.run, _in_a_future, call.activity.code, call.context, *args, **kwargs)
        return await asyncio.wrap_future(call.work)


def _in_a_future(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What a plain function returns.

    No future can hold a `StopIteration`, so it is raised as a coroutine would raise it. A `GeneratorExit` out of a
    future would close the frames that wait for it, as if the event loop were being taken apart.
    """
    try:
        return fn(*args, **kwargs)
    except (StopIteration, GeneratorExit) as error:
        raise RuntimeError(f"the activity raised {type(error).__name__}") from error


async def awaited(code: Any, activity: Activity[Any, Any]) -> Any:
    """What an asynchronous activity gives that is no coroutine itself, or stands behind a decorator."""
    if not inspect.isawaitable(code):
        raise SerializationError(
            f'activity "{activity.name}" is an `async def` behind a decorator that returned {code!r:.80} and '
            "nothing to await. Let the decorator return what the function returns, or be an `async def` itself."
        )
    return await code


@types.coroutine
def _go_on(code: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine that has been begun, and that waits for `awaited`."""
    try:
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:
                code.close()
                raise
            except BaseException as error:  # thrown in by the task: the coroutine's to handle
                awaited = code.throw(error)
            else:
                awaited = code.send(sent)
    except StopIteration as end:
        return end.value
