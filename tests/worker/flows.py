"""The workflows of the workers' tests.

    PGFLOW_DATABASE_URL=... pgflow worker tests.worker.flows

Activities say in the side table `marks`, through a connection that pgflow knows nothing of, how far they have got.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg

import pgflow
from pgflow.worker import loop_watchdog

if "PGFLOW_TEST_LIMIT" in os.environ:
    loop_watchdog.LIMIT = float(os.environ["PGFLOW_TEST_LIMIT"])

VARIABLE = "PGFLOW_DATABASE_URL"
MARKS = (
    "CREATE TABLE IF NOT EXISTS public.marks (number serial, what text NOT NULL, process int NOT NULL, attempt int "
    "NOT NULL, begun float8)"
)

entered: list[int] = []
"""The turns that `turning` has begun in this process, replayed ones included."""

_local = threading.local()


def mark(ctx: pgflow.ActivityContext, what: str) -> None:
    """Leave a mark outside of pgflow's transactions, with the machine's monotonic time of now."""
    begun = time.monotonic()
    dsn = os.environ[VARIABLE]
    if getattr(_local, "dsn", None) != dsn:
        _local.dsn, _local.connection = dsn, psycopg.connect(dsn, autocommit=True)
    _local.connection.execute(
        "INSERT INTO public.marks (what, process, attempt, begun) VALUES (%s, %s, %s, %s)",
        [what, os.getpid(), ctx.attempt, begun],
    )


def released(what: str) -> bool:
    """Whether the test has let `what` go on."""
    row = _local.connection.execute("SELECT count(*) FROM public.marks WHERE what = %s", [what]).fetchone()
    return bool(row[0])


@pgflow.activity
async def add(ctx: pgflow.ActivityContext, one: int, other: int) -> int:
    return one + other


@pgflow.activity
def multiply(ctx: pgflow.ActivityContext, one: int, other: int) -> int:
    return one * other


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=0.01))
async def second_time(ctx: pgflow.ActivityContext) -> str:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return f"attempt {ctx.attempt}"


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=0.01))
def never(ctx: pgflow.ActivityContext) -> None:
    raise ValueError("never")


@pgflow.activity(timeout=None)
async def held(ctx: pgflow.ActivityContext, name: str) -> str:
    """Runs until the mark `NAME goes on` is left."""
    mark(ctx, f"{name} begins")
    while not released(f"{name} goes on"):
        await asyncio.sleep(0.01)
    mark(ctx, f"{name} ends")
    return f"{name} of attempt {ctx.attempt}"


@pgflow.activity(timeout=None)
def held_in_thread(ctx: pgflow.ActivityContext, name: str) -> str:
    """The same, in a thread."""
    mark(ctx, f"{name} begins")
    while not released(f"{name} goes on"):
        time.sleep(0.01)
    mark(ctx, f"{name} ends")
    return f"{name} of attempt {ctx.attempt}"


@pgflow.activity
async def block(ctx: pgflow.ActivityContext, seconds: float) -> int:
    """Keeps the event loop from everything else, as careless code does."""
    mark(ctx, "blocks")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return os.getpid()


@pgflow.workflow
async def sums(ctx: pgflow.WorkflowContext, number: int) -> int:
    return await ctx.activity(multiply, await ctx.activity(add, number, 1), 10)


@pgflow.workflow
async def retried(ctx: pgflow.WorkflowContext) -> list[str]:
    found = [await ctx.activity(second_time)]
    with suppress(pgflow.ActivityFailed):
        await ctx.activity(never)
        found.append("never fails no more")
    return found


@pgflow.workflow
async def failing(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(never)


@pgflow.workflow
async def sleeper(ctx: pgflow.WorkflowContext, number: int, seconds: float) -> int:
    """Works, sleeps, works."""
    number = await ctx.activity(add, number, 1)
    await ctx.sleep(seconds)
    return await ctx.activity(add, number, 1)


@pgflow.workflow
async def hurried(ctx: pgflow.WorkflowContext, seconds: float) -> str:
    try:
        async with ctx.timeout(seconds):
            await asyncio.gather(ctx.sleep(3600), ctx.sleep(7200))
    except TimeoutError:
        return "late"
    return "in time"


@pgflow.workflow
async def parted(ctx: pgflow.WorkflowContext, number: int) -> list[Any]:
    """Branches, a join, a gather and a workflow within a workflow."""

    async def twice(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.activity(multiply, await ctx.activity(multiply, number, 2), 2)

    joined = await ctx.join(ctx.activity(add, number, 1), twice)
    gathered = await asyncio.gather(ctx.activity(add, number, 2), ctx.branch(twice), ctx.sleep(0))
    return [*joined, *gathered[:2], await ctx.inline(sums, number)]


@pgflow.workflow
async def turning(
    ctx: pgflow.WorkflowContext,
    turns: int,
    commit_interval: int = 20,
    keep_iterations: int = 100,
    held_at: int | None = None,
) -> int:
    """So many turns that go on, then one that breaks: each with a step and a branch with a step; every tenth with a
    loop.

    In turn `held_at`, an activity waits for the test.
    """

    async def inner(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        value = await ctx.activity(add, state, 1)
        return pgflow.Continue(value) if value < 2 else pgflow.Break(value)

    async def aside(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.activity(add, 1, 1)

    async def turn(ctx: pgflow.WorkflowContext, index: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        entered.append(index)
        total = await ctx.activity(add, index, 1)
        await ctx.branch(aside)
        if index % 10 == 0:
            await ctx.loop(inner, 0, commit_interval=50)
        if index == held_at:
            await ctx.activity(held, f"turn {index}")
        return pgflow.Continue(total) if index < turns else pgflow.Break(index)

    return await ctx.loop(turn, 0, commit_interval=commit_interval, keep_iterations=keep_iterations)


@pgflow.workflow
async def holding(ctx: pgflow.WorkflowContext, name: str, thread: bool = False) -> str:
    await ctx.activity(add, 1, 1)
    found = await ctx.activity(held_in_thread if thread else held, name)
    await ctx.activity(add, 2, 2)
    return found


@pgflow.activity
async def leave_mark(ctx: pgflow.ActivityContext, what: str) -> None:
    mark(ctx, what)


@pgflow.workflow
async def marking(ctx: pgflow.WorkflowContext, name: str, steps: int) -> None:
    """So many steps, each of which leaves a mark."""
    for step in range(steps):
        await ctx.activity(leave_mark, f"{name} step {step}")


@pgflow.workflow
async def blocking(ctx: pgflow.WorkflowContext, seconds: float) -> int:
    return await ctx.activity(block, seconds)


@pgflow.workflow
async def computing(ctx: pgflow.WorkflowContext, seconds: float) -> int:
    """Careless code of a workflow: it computes between two steps."""
    await ctx.activity(add, 1, 1)
    until = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < until:
        rounds += 1
    return await ctx.activity(add, 2, 2)


@pgflow.workflow
async def endless(ctx: pgflow.WorkflowContext, number: int, swallows: bool = False) -> int:
    """A loop without an `await`, before any step."""
    while True:
        try:
            while True:
                number += 1
        except BaseException:
            if not swallows:
                raise


@pgflow.workflow
async def spinning(ctx: pgflow.WorkflowContext) -> None:
    done = False
    while not done:
        await asyncio.sleep(0)


ALL: list[pgflow.Workflow[Any, Any]] = [
    endless,
    spinning,
    sums,
    retried,
    failing,
    sleeper,
    hurried,
    parted,
    turning,
    holding,
    marking,
    blocking,
    computing,
]
