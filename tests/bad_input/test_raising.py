"""Whatever code raises, wherever it does, fails its own workflow: the worker lives, and its neighbours reach their end.
About 5 seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow


class LazyCause(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("not loaded")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Disguised(Exception):
    @property  # type: ignore[misc]  # hostile on purpose
    def __class__(self) -> Any:
        raise RuntimeError("no class")


class Stop(StopIteration):
    """Nothing that a future can hold."""


@dataclass(frozen=True)
class Frozen(Exception):
    what: str = "frozen"


def group() -> BaseException:
    return BaseExceptionGroup("several", [SystemExit(1), KeyboardInterrupt(), ValueError()])


def circle() -> BaseException:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def shared() -> BaseException:
    error: Exception = ValueError("deep")
    for _ in range(40):
        error = ExceptionGroup("both", [error, error])
    return error


MADE: dict[str, Callable[[], BaseException]] = {
    "LazyCause": LazyCause,
    "Exiting": Exiting,
    "Disguised": Disguised,
    "Stop": Stop,
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "GeneratorExit": GeneratorExit,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "Frozen": Frozen,
    "group": group,
    "circle": circle,
    "shared": shared,
    "huge": lambda: ValueError("x" * 5_000_000),
    "recursion": lambda: RecursionError("deep"),
    "memory": MemoryError,
}
ONCE = pgflow.RetryPolicy(max_attempts=1)


@pgflow.activity(retry=ONCE)
async def at_once(ctx: pgflow.ActivityContext, what: str) -> None:
    raise MADE[what]()


@pgflow.activity(retry=ONCE)
async def later(ctx: pgflow.ActivityContext, what: str) -> None:
    await asyncio.sleep(0)
    raise MADE[what]()


@pgflow.activity(retry=ONCE)
def in_a_thread(ctx: pgflow.ActivityContext, what: str) -> None:
    raise MADE[what]()


@pgflow.activity(retry=ONCE, transactional=True)
async def transactional(ctx: pgflow.ActivityContext, what: str) -> None:
    await ctx.connection.execute("SELECT 1")
    raise MADE[what]()


@pgflow.activity(retry=ONCE, transactional=True)
def transactional_thread(ctx: pgflow.ActivityContext, what: str) -> None:
    raise MADE[what]()


@pgflow.activity(retry=ONCE)
async def in_a_task(ctx: pgflow.ActivityContext, what: str) -> None:
    async def child() -> None:
        await asyncio.sleep(0)
        raise MADE[what]()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child())


@pgflow.activity(retry=ONCE)
async def cleaning_up(ctx: pgflow.ActivityContext, what: str) -> None:
    @contextlib.contextmanager
    def around() -> Iterator[None]:
        try:
            yield
        finally:
            raise MADE[what]()

    with around():
        await asyncio.sleep(0)


ACTIVITIES = {
    each.name: each
    for each in (at_once, later, in_a_thread, transactional, transactional_thread, in_a_task, cleaning_up)
}


@pgflow.workflow
async def calls(ctx: pgflow.WorkflowContext, where: str, what: str) -> None:
    await ctx.activity(ACTIVITIES[where], what)


@pgflow.workflow
async def raises(ctx: pgflow.WorkflowContext, where: str, what: str) -> None:
    async def turn(ctx: pgflow.WorkflowContext, state: None) -> Any:
        raise MADE[what]()

    if where == "its code":
        await ctx.sleep(0)
        raise MADE[what]()
    elif where == "a branch":
        await ctx.branch(raising(what))
    elif where == "a join":
        await ctx.join(raising(what), lambda ctx: ctx.sleep(0.01))
    elif where == "a loop":
        await ctx.loop(turn)
    elif where == "a task":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ctx.branch(raising(what)))
    elif where == "a timeout":
        async with ctx.timeout(30):
            await ctx.branch(raising(what))


def raising(what: str) -> Callable[[pgflow.WorkflowContext], Any]:
    async def raises_it(ctx: pgflow.WorkflowContext) -> None:
        raise MADE[what]()

    return raises_it


@pgflow.workflow
async def innocent(ctx: pgflow.WorkflowContext, number: int) -> int:
    await ctx.sleep(0.01)
    return number


BODIES = ("its code", "a branch", "a join", "a loop", "a task", "a timeout")


async def test_the_worker_lives_and_the_neighbours_end(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)  # the logging of pytest would format what raises
    ended = 0
    async with pgflow.Client(dsn) as client:
        worker = pgflow.Worker(dsn, workflows=[calls, raises, innocent])
        running = asyncio.create_task(worker.run())
        handles: list[tuple[str, str, pgflow.WorkflowHandle[object]]] = []
        for number, what in enumerate(MADE):
            for where in ACTIVITIES:
                if not (
                    where == "in_a_task" and what in ("SystemExit", "KeyboardInterrupt")
                ):  # asyncio ends the loop itself
                    handles.append((where, what, await client.dispatch(calls, where, what)))
            for where in BODIES:
                handles.append((where, what, await client.dispatch(raises, where, what)))
            handles.append(("", "", await client.dispatch(innocent, number)))
        for where, what, handle in handles:
            output = asyncio.ensure_future(handle.output(timeout=120))
            await asyncio.wait([output, running], return_when=asyncio.FIRST_COMPLETED)
            assert not running.done(), (where, what, running.exception())
            if what == "CancelledError" and "task" in where:
                assert output.exception() is None  # to a TaskGroup a cancelled task is no failure
            elif what:
                failure = output.exception()
                assert isinstance(failure, pgflow.WorkflowFailed), (where, what, failure)
            else:
                output.result()
                ended += 1
        assert ended == len(MADE)
        worker.stop()
        await running
