"""Attempts that share a task notice nothing of each other, and none holds up the others."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

import pgflow
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.activities.activity_context import ActivityContext
from pgflow.execution.activities.runner import ActivityRunner

incomparable: contextvars.ContextVar[object] = contextvars.ContextVar("incomparable")
listed: contextvars.ContextVar[list[int]] = contextvars.ContextVar("listed")
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="untouched")


LIST: list[int] = []
NO_TRANSACTIONS: Any = None


class Attempts:
    """Starts activities on a runner, and keeps what comes of them."""

    def __init__(self, places: int = 100) -> None:
        self._threads = ThreadPoolExecutor(1)
        self.runner = ActivityRunner(self._threads, places, 1, NO_TRANSACTIONS, 1)
        self.results: list[Any] = []
        self._expected = 0
        self._all = asyncio.Event()

    def start(self, activity: Any, *args: Any) -> ActivityCall:
        self._expected += 1
        text = activity.encode_arguments(args, {})
        context = ActivityContext("1", UUID(int=1), activity.name, 1)
        call = ActivityCall(activity, context, text, 1000, self)
        self.runner.start(call)
        return call

    def __str__(self) -> str:
        return "a step"

    def attempt_progressed(self, details: str) -> None:
        raise AssertionError("none of these tells a heartbeat")

    def was_under_way(self, at: datetime, recorded: bool) -> bool:
        raise AssertionError("no process has died")

    def attempt_died(self, error: BaseException, at: datetime) -> None:
        raise AssertionError("no process has died")

    def record_first(self) -> None:
        raise AssertionError("no process has died")

    def record_beginning(self, begin: Callable[[], None]) -> None:
        raise AssertionError("no process has died")

    def attempt_ready(self, output: str, go: Any) -> None:
        raise AssertionError("none of these is transactional")

    def attempt_ended(self, output: str | None, error: BaseException | None) -> None:
        self.results.append(output if error is None else error)
        if len(self.results) == self._expected:
            self._all.set()

    async def ended(self, number: int | None = None) -> list[Any]:
        """The results, once there are so many (all, if no number is given)."""
        self._expected = self._expected if number is None else number
        async with asyncio.timeout(30):
            if len(self.results) < self._expected:
                self._all.clear()
                await self._all.wait()
        return self.results

    def close(self) -> None:
        self.runner.close()
        self._threads.shutdown(wait=False)


@pytest.fixture
async def attempts() -> Any:
    made = Attempts()
    yield made
    made.close()


@pgflow.activity
async def whose(ctx: pgflow.ActivityContext) -> int:
    return id(asyncio.current_task())


@pgflow.activity
async def read(ctx: pgflow.ActivityContext) -> str:
    return variable.get()


@pgflow.activity
async def write(ctx: pgflow.ActivityContext) -> str:
    variable.set("written")
    return variable.get()


@pgflow.activity
async def for_ever(ctx: pgflow.ActivityContext) -> None:
    await asyncio.get_running_loop().create_future()


async def test_attempts_that_do_not_wait_share_a_task(attempts: Attempts) -> None:
    for _ in range(20):
        attempts.start(whose)
    assert len(set(await attempts.ended())) == 1


async def test_context_variables_are_not_shared(attempts: Attempts) -> None:
    for activity in (read, write, read, write, read):
        attempts.start(activity)
    assert await attempts.ended() == ['"untouched"', '"written"'] * 2 + ['"untouched"']


async def test_context_variables_of_whoever_asks_are_not_seen(attempts: Attempts) -> None:
    contextvars.copy_context().run(lambda: (variable.set("asker's"), attempts.start(read)))
    assert await attempts.ended() == ['"untouched"']


async def test_one_that_waits_holds_up_nobody_and_is_cancelled_alone(attempts: Attempts) -> None:
    attempts.start(read)
    waiting = [attempts.start(for_ever) for _ in range(3)]
    attempts.start(read)
    assert await attempts.ended(2) == ['"untouched"'] * 2
    assert attempts.runner.running == 3
    for call in waiting:
        call.cancel()
    for _ in range(3):
        attempts.start(read)
    assert await attempts.ended(5) == ['"untouched"'] * 5
    assert attempts.runner.running == 0


async def test_no_more_than_there_are_places() -> None:
    attempts = Attempts(places=2)
    calls = [attempts.start(for_ever) for _ in range(2)]
    attempts.start(read)
    for _ in range(10):
        await asyncio.sleep(0)
    assert attempts.results == []
    calls[0].cancel()
    assert await attempts.ended(1) == ['"untouched"']
    attempts.close()


async def test_a_timeout_ends_what_waits(attempts: Attempts) -> None:
    attempts.start(for_ever.options(timeout=0.01))
    attempts.start(read)
    first, second = await attempts.ended()
    assert first == '"untouched"'
    assert isinstance(second, TimeoutError) and "within its timeout of 0.01 s" in str(second)


async def test_errors_and_cancellations_are_raised_in_the_code_that_waits(attempts: Attempts) -> None:
    seen: list[str] = []

    @pgflow.activity
    async def catches(ctx: pgflow.ActivityContext) -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return "never"

    @pgflow.activity
    async def raises(ctx: pgflow.ActivityContext) -> str:
        try:
            async with asyncio.timeout(0):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            await asyncio.sleep(0)
            raise ValueError("after two waits") from None
        return "never"

    call = attempts.start(catches)
    attempts.start(raises)
    (error,) = await attempts.ended(1)
    assert repr(error) == "ValueError('after two waits')"
    call.cancel()
    async with asyncio.timeout(30):
        while not seen:
            await asyncio.sleep(0)


class Wrapped:
    """An awaitable that is no coroutine, as a compiled function may return."""

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        return 7  # type: ignore[return-value]


async def test_any_awaitable_will_do(attempts: Attempts) -> None:
    @pgflow.activity
    async def odd(ctx: pgflow.ActivityContext) -> int:
        return 0

    object.__setattr__(odd, "code", lambda ctx: Wrapped())
    attempts.start(odd)
    assert await attempts.ended() == ["7"]


class Stop(BaseException):
    """Neither an Exception nor one that asyncio knows."""


class Incomparable:
    """Cannot be compared, as arrays of some libraries cannot."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("neither true nor false")

    __hash__ = None  # type: ignore[assignment]


@pgflow.activity
async def stops(ctx: pgflow.ActivityContext, waits: bool) -> None:
    if waits:
        await asyncio.sleep(0)
    raise Stop


@pgflow.activity
async def sets(ctx: pgflow.ActivityContext) -> None:
    incomparable.set(Incomparable())


async def test_whatever_an_attempt_raises_is_its_failure_alone(attempts: Attempts) -> None:
    attempts.start(stops, False)
    attempts.start(stops, True)
    attempts.start(read)
    attempts.start(stops, False)
    ended = await attempts.ended()
    assert sorted(type(result).__name__ for result in ended) == ["Stop", "Stop", "Stop", "str"]


async def test_variables_that_cannot_be_compared_are_a_trace(attempts: Attempts) -> None:
    attempts.close()
    incomparable.set(Incomparable())
    made = Attempts()  # in a context that has the variable
    for activity in (sets, read, sets, read):
        made.start(activity)
    assert await made.ended() == ["null", '"untouched"'] * 2
    made.close()


@pgflow.activity
async def writes_an_equal_list(ctx: pgflow.ActivityContext) -> None:
    listed.set([])


@pgflow.activity
async def reads_the_same_list(ctx: pgflow.ActivityContext) -> bool:
    return listed.get() is LIST


async def test_a_variable_with_an_equal_value_is_a_trace(attempts: Attempts) -> None:
    attempts.close()
    listed.set(LIST)
    made = Attempts()
    for activity in (writes_an_equal_list, reads_the_same_list, writes_an_equal_list, reads_the_same_list):
        made.start(activity)
    assert await made.ended() == ["null", "true"] * 2
    made.close()


@pgflow.activity
def runs_out(ctx: pgflow.ActivityContext) -> None:
    next(iter(()))


@pgflow.activity
async def breaks_off(ctx: pgflow.ActivityContext) -> None:
    await asyncio.sleep(0)
    raise GeneratorExit


@pgflow.activity(timeout=0.2)
async def outlasts(ctx: pgflow.ActivityContext) -> None:
    """On Python 3.11 and 3.12 a TaskGroup that failed leaves its task counted as cancelled."""

    async def fail() -> None:
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(60))
    except* ValueError:
        pass
    await asyncio.sleep(60)


async def test_failures_that_mean_something_to_the_interpreter(attempts: Attempts) -> None:
    for activity in (runs_out, breaks_off, outlasts, read):
        attempts.start(activity)
    ended = await attempts.ended()
    assert sorted(type(result).__name__ for result in ended) == ["GeneratorExit", "RuntimeError", "TimeoutError", "str"]
