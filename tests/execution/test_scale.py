"""What a workflow does at once costs in proportion: thousands of steps in parallel are not thousands of times
thousands.

Counted are the lines of pgflow's execution and history that run, not seconds: the same on every machine.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import pgflow
from tests.execution.programs import echo, fails
from tests.execution.simulator import Incarnation, World

Ctx = pgflow.WorkflowContext
Body = Callable[[Ctx, int], Awaitable[Any]]
COUNTED = tuple(str(Path(pgflow.__file__).parent / name) for name in ("execution", "history"))


async def activities(ctx: Ctx, n: int) -> None:
    await asyncio.gather(*[ctx.activity(echo, str(i)) for i in range(n)])


async def group(ctx: Ctx, n: int) -> None:
    async with asyncio.TaskGroup() as tasks:
        for i in range(n):
            tasks.create_task(ctx.activity(echo, str(i)))


async def failing_group(ctx: Ctx, n: int) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            for i in range(n):
                tasks.create_task(ctx.sleep(100 + i))
            tasks.create_task(ctx.activity(fails, "b"))
    except* pgflow.ActivityFailed:
        pass


async def short_sleeps(ctx: Ctx, n: int) -> None:
    await asyncio.gather(*[ctx.sleep(0.9 * i / n) for i in range(n)])


async def sleeps_due_together(ctx: Ctx, n: int) -> None:
    await asyncio.gather(*[ctx.sleep(100) for _ in range(n)])


async def sleeps_beside_a_short_one(ctx: Ctx, n: int) -> None:
    """The lease is kept by ever another short sleep while long ones fall due one after the other."""

    async def keeps(branch: Ctx) -> None:
        for _ in range(n):
            await branch.sleep(1)

    await asyncio.gather(ctx.branch(keeps), *[ctx.sleep(2 + i) for i in range(n)])


async def timeouts(ctx: Ctx, n: int) -> None:
    async def late(branch: Ctx) -> None:
        try:
            async with branch.timeout(0.5):
                await branch.sleep(100)
        except TimeoutError:
            pass

    await ctx.join(*[late for _ in range(n)])


async def timeouts_left_in_time(ctx: Ctx, n: int) -> None:
    for i in range(n):
        async with ctx.timeout(3600):
            await ctx.activity(echo, str(i))


async def left_steps(ctx: Ctx, n: int) -> None:
    async def leaves(branch: Ctx) -> None:
        asyncio.ensure_future(branch.sleep(100))
        await branch.activity(echo, "a")

    await ctx.join(*[leaves for _ in range(n)])


async def loops(ctx: Ctx, n: int) -> None:
    async def turn(ctx: Ctx, k: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await ctx.activity(echo, "a")
        await ctx.sleep(100)
        return pgflow.Break(k) if k == 1 else pgflow.Continue(k + 1)

    async def looping(branch: Ctx) -> int:
        return await branch.loop(turn, 0)

    await ctx.join(*[looping for _ in range(n)])


async def many_turns(ctx: Ctx, n: int) -> None:
    async def turn(ctx: Ctx, k: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await ctx.activity(echo, "a")
        return pgflow.Break(k) if k == n else pgflow.Continue(k + 1)

    await ctx.loop(turn, 0)


async def first_of_many(ctx: Ctx, n: int) -> None:
    tasks = [asyncio.ensure_future(ctx.activity(echo, str(i))) for i in range(n)]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.wait(pending)


BODIES: list[Body] = [
    activities,
    group,
    failing_group,
    short_sleeps,
    sleeps_due_together,
    sleeps_beside_a_short_one,
    timeouts,
    timeouts_left_in_time,
    left_steps,
    loops,
    many_turns,
    first_of_many,
]


def lines_of(body: Body, n: int) -> int:
    """The lines that run from the first life to the last, and in a replay of the whole."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> None:
        await body(ctx, n)

    lines = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(COUNTED):
            return None
        if event == "line":
            lines += 1
        return trace

    world = World(program)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        while world.status != "completed":
            assert world.status != "failed", world.error
            if world.status == "sleeping":
                assert world.wake_at is not None
                world.now = max(world.now, world.wake_at)
            life = Incarnation(world)
            while not life.ended:
                life.go_on()
        world.status = "pending"
        Incarnation(world).go_on()
    finally:
        sys.settrace(before)
    assert world.status == "completed"
    return lines


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_what_is_done_at_once_costs_in_proportion(body: Body) -> None:
    few, many = lines_of(body, 40), lines_of(body, 160)
    assert many < 5 * few, f"four times as much took {many / few:.1f} times as many lines"
