"""The load under which workers are killed: a bit of every kind of step, with predictable outputs.

Each attempt of an activity is noted in a side table, `attempts`, through a connection that pgflow knows nothing of.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

import psycopg

import pgflow

VARIABLE = "PGFLOW_KILL_DSN"
THROUGH = "PGFLOW_KILL_THROUGH"
"""The environment variable of the DSN that workers use, if it is another than that of the side tables."""
TOKEN = uuid.uuid4().hex  # of this process; the launcher gives each child its own

SIDE_TABLES = """
CREATE TABLE attempts (
    token text NOT NULL,
    workflow_id uuid NOT NULL,
    key uuid NOT NULL,
    name text NOT NULL,
    attempt int NOT NULL,
    begun_at timestamptz NOT NULL
);
CREATE TABLE effects (key uuid NOT NULL, workflow_id uuid NOT NULL);
CREATE TABLE kills (
    token text PRIMARY KEY,
    how text NOT NULL,
    killed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

QUICKLY = pgflow.RetryPolicy(max_attempts=4, initial=0.02, maximum=0.1)
AS_OFTEN_AS_IT_TAKES = pgflow.RetryPolicy(max_attempts=100, initial=0.02, maximum=0.1)
"""For activities that fail when their connection is cut."""
_NOTE = (
    "INSERT INTO attempts (token, workflow_id, key, name, attempt, begun_at) VALUES (%s, %s, %s, %s, %s, "
    "to_timestamp(%s))"
)

_ENTER = "INSERT INTO public.effects (key, workflow_id) VALUES (%s, %s)"

_local = threading.local()
_shared: psycopg.AsyncConnection[Any] | None = None
_opening = asyncio.Lock()


async def note(ctx: pgflow.ActivityContext) -> None:
    """Write down that an attempt begins."""
    global _shared
    begun_at = time.time()  # the server's clock is this machine's, and the way to it may be long
    async with _opening:
        if _shared is None or _shared.closed:
            _shared = await psycopg.AsyncConnection.connect(os.environ[VARIABLE], autocommit=True)
    await _shared.execute(_NOTE, [TOKEN, ctx.workflow_id, ctx.id, ctx.name, ctx.attempt, begun_at])


def note_blocking(ctx: pgflow.ActivityContext) -> None:
    """Write down, from a thread, that an attempt begins."""
    begun_at = time.time()
    if not hasattr(_local, "connection"):
        _local.connection = psycopg.connect(os.environ[VARIABLE], autocommit=True)
    _local.connection.execute(_NOTE, [TOKEN, ctx.workflow_id, ctx.id, ctx.name, ctx.attempt, begun_at])


@pgflow.activity
async def double(ctx: pgflow.ActivityContext, number: int) -> int:
    await note(ctx)
    return number * 2


@pgflow.activity
async def slow_double(ctx: pgflow.ActivityContext, number: int) -> int:
    await note(ctx)
    await asyncio.sleep(0.05)
    return number * 2


@pgflow.activity
def triple(ctx: pgflow.ActivityContext, number: int) -> int:
    note_blocking(ctx)
    return number * 3


@pgflow.activity(retry=QUICKLY)
async def third_time_lucky(ctx: pgflow.ActivityContext, number: int) -> int:
    await note(ctx)
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt} fails")
    return number + 1


@pgflow.activity(retry=QUICKLY)
def hopeless(ctx: pgflow.ActivityContext, number: int) -> int:
    note_blocking(ctx)
    raise ValueError(f"{number} is never good")


@pgflow.activity(timeout=None)
async def endless(ctx: pgflow.ActivityContext) -> None:
    await note(ctx)
    await asyncio.Event().wait()


@pgflow.activity(transactional=True, retry=AS_OFTEN_AS_IT_TAKES)
async def enter(ctx: pgflow.ActivityContext, number: int) -> int:
    """An effect in the transaction of its result; the first attempt fails after it."""
    await note(ctx)
    await ctx.connection.execute(_ENTER, [ctx.id, ctx.workflow_id])
    ctx.state[str(ctx.id)] = number
    if ctx.attempt == 1:
        raise ConnectionError("the first attempt fails")
    return number + 1


@pgflow.activity(transactional=True, retry=AS_OFTEN_AS_IT_TAKES)
def enter_blocking(ctx: pgflow.ActivityContext, number: int) -> int:
    note_blocking(ctx)
    ctx.connection.execute(_ENTER, [ctx.id, ctx.workflow_id])
    ctx.state[str(ctx.id)] = number
    return number + 1


@pgflow.workflow
async def sequence(ctx: pgflow.WorkflowContext, number: int) -> int:
    """One step after the other, async and sync."""
    for _ in range(3):
        number = await ctx.activity(double, number)
        number = await ctx.activity(triple, number)
    return number


@pgflow.workflow
async def together(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Steps at the same time, by every means."""
    gathered = await asyncio.gather(
        *[ctx.activity(double, number + i) for i in range(4)], ctx.activity(slow_double, number), ctx.sleep(0.03)
    )

    async def aside(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.activity(triple, await ctx.activity(double, number))

    joined: list[int] = await ctx.join(ctx.activity(slow_double, number), aside, aside)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.activity(triple, number + i)) for i in range(2)]
    doubled: list[int] = [each for each in gathered if each is not None]
    assert len(doubled) == 5, "all but the sleep's"
    return sum(doubled) + sum(joined) + sum(task.result() for task in tasks)


@pgflow.workflow
async def sleepy(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Sleeps short and long, between steps and beside them."""
    number = await ctx.activity(double, number)
    await ctx.sleep(0.05)
    number = await ctx.activity(triple, number)
    await ctx.sleep(1.1)
    number, _ = await asyncio.gather(ctx.activity(double, number), ctx.sleep(1.3))
    return number


@pgflow.workflow
async def stubborn(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Attempts that fail, one activity that fails for good, and what makes up for it."""
    number = await ctx.activity(third_time_lucky, number)
    try:
        await ctx.activity(hopeless, number)
    except pgflow.ActivityFailed as failure:
        number = await ctx.activity(double, number + failure.attempts)
    return await ctx.activity(third_time_lucky, number)


@pgflow.workflow
async def looping(ctx: pgflow.WorkflowContext, number: int) -> int:
    """A loop that forgets often, with a loop and a branch in each turn."""

    async def inner(ctx: pgflow.WorkflowContext, left: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        if left == 0:
            return pgflow.Break(await ctx.activity(double, 1))
        await ctx.activity(double, left)
        return pgflow.Continue(left - 1)

    async def turn(ctx: pgflow.WorkflowContext, state: list[int]) -> pgflow.Continue[list[int]] | pgflow.Break[int]:
        done, total = state
        if done == TURNS:
            return pgflow.Break(await ctx.activity(double, total))

        async def aside(ctx: pgflow.WorkflowContext) -> int:
            return await ctx.activity(triple, done)

        value = await ctx.activity(double, number + done)
        two = await ctx.loop(inner, 2, commit_interval=1)
        value, other = await ctx.join(ctx.activity(double, value), aside)
        return pgflow.Continue([done + 1, total + value + other + two])

    return await ctx.loop(turn, [0, 0], commit_interval=3, keep_iterations=kept(number))


TURNS = 8
"""Turns that the outer loop goes on; one more breaks it."""


def kept(number: int) -> int:
    """The forgotten turns that the outer loop keeps."""
    return 4 if number % 2 else 1000


@pgflow.workflow
async def deadlines(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Deadlines that pass, short and long, and one that does not."""
    for seconds in (0.2, 1.2):
        try:
            async with ctx.timeout(seconds):
                await asyncio.gather(ctx.activity(endless), ctx.sleep(3600))
        except TimeoutError:
            number += 1
    async with ctx.timeout(3600):
        number = await ctx.activity(double, number)
    return number


@pgflow.workflow
async def everything(ctx: pgflow.WorkflowContext, number: int) -> int:
    """The others as parts of one."""
    first = await ctx.inline(sequence, number)
    both = await asyncio.gather(ctx.inline(stubborn, number), ctx.inline(together, number))
    return first + sum(both)


@pgflow.signal
@dataclass
class Ping:
    """Something for a child to hear."""

    number: int


@pgflow.workflow
async def listener(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Hears two signals, in order."""
    first: Ping = await ctx.listen(Ping)
    doubled = await ctx.activity(double, first.number)
    second: Ping = await ctx.listen(Ping, timeout=3600)
    return doubled + second.number


@pgflow.workflow
async def family(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Two children: one works, the other is told what to do."""
    worker = await ctx.dispatch(sequence, number)
    ear = await ctx.dispatch(listener, number)
    await ctx.signal(Ping(number), to=ear.id)
    found = await worker.output()
    await ctx.signal(Ping(number + 1), to=ear.id)
    return found + await ear.output()


@pgflow.workflow
async def ledger(ctx: pgflow.WorkflowContext, number: int) -> int:
    """Transactional activities, one after the other and at once with plain ones, in turns of a loop."""

    async def turn(ctx: pgflow.WorkflowContext, left: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        total = await ctx.activity(enter_blocking, left)
        entered = await asyncio.gather(
            ctx.activity(enter, total), ctx.activity(double, total), ctx.activity(enter_blocking, total)
        )
        return pgflow.Continue(left - 1) if left else pgflow.Break(sum(entered))

    number = await ctx.activity(enter_blocking, number)
    return number + await ctx.loop(turn, 3, commit_interval=2, keep_iterations=1000)


def foretold(name: str, number: int) -> int:
    """The output of a workflow, computed without pgflow."""
    if name == "sequence":
        return number * 216
    if name == "together":
        return sum((number + i) * 2 for i in range(4)) + number * 4 + number * 12 + (number * 2 + 1) * 3
    if name == "sleepy":
        return number * 12
    if name == "stubborn":
        return (number + 1 + 4) * 2 + 1
    if name == "looping":
        return 2 * sum((number + done) * 4 + done * 3 + 2 for done in range(TURNS))
    if name == "deadlines":
        return (number + 2) * 2
    if name == "listener":
        return number * 2 + number + 1
    if name == "family":
        return foretold("sequence", number) + foretold("listener", number)
    if name == "ledger":
        return number + 1 + 6
    assert name == "everything"
    return sum(foretold(part, number) for part in ("sequence", "stubborn", "together"))


ROOTS = [sequence, together, sleepy, stubborn, looping, deadlines, ledger, everything, family]
"""What is started from outside."""

WORKFLOWS = [*ROOTS, listener]
