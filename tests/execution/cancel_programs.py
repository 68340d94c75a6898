"""Programs that somebody cancels at any moment, wherever they wait, and that compensate with further steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import pgflow
from tests.execution.lives import Program, Seen
from tests.execution.neighbour_programs import Hello
from tests.execution.programs import echo

Ctx = pgflow.WorkflowContext
Turn = pgflow.Continue[int] | pgflow.Break[int]
Waits = Callable[[Ctx, Seen], Coroutine[Any, Any, Any]]


async def run(ctx: Ctx, seen: Seen) -> None:
    seen.append(await ctx.activity(echo, "work"), ctx)


async def sleep(ctx: Ctx, seen: Seen) -> None:
    await ctx.sleep(90)
    seen.append("slept", ctx)


async def hear(ctx: Ctx, seen: Seen) -> None:
    seen.append(await ctx.listen(Hello), ctx)


async def hear_in_time(ctx: Ctx, seen: Seen) -> None:
    seen.append(await ctx.listen(Hello, timeout=90), ctx)


async def hear_many(ctx: Ctx, seen: Seen) -> None:
    seen.append(await ctx.listen_many(Hello, limit=2), ctx)


async def child(ctx: Ctx, seen: Seen) -> None:
    started = await ctx.dispatch("child", number=1)
    seen.append("started", ctx)
    try:
        seen.append(await started.output(), ctx)
    except pgflow.WorkflowCancelled:
        seen.append("the child was cancelled", ctx)


async def detached(ctx: Ctx, seen: Seen) -> None:
    started = await ctx.dispatch("child", detached=True, number=1)
    seen.append(await started.output(), ctx)


def compensating(waits: Waits, returns: bool) -> Program:
    """It waits; cancelled, it does three more steps, and returns or lets the error pass."""

    def build(seen: Seen) -> pgflow.Workflow[Any, Any]:
        @pgflow.workflow
        async def program(ctx: Ctx) -> str:
            try:
                await waits(ctx, seen)
            except asyncio.CancelledError:
                seen.append("cancelled")
                seen.append(await ctx.activity(echo, "undo"))
                await ctx.sleep(30)
                seen.append(await ctx.signal(Hello(9), to=UUID(int=5)) is not None)
                if not returns:
                    raise
                return "compensated"
            return "in full"

        return program

    return build


async def _told(step: Coroutine[Any, Any, Any], name: str, ctx: Ctx, seen: Seen) -> None:
    """Each branch undoes what it has done, and lets the error pass."""
    try:
        await step
    except asyncio.CancelledError:
        seen.append(f"{name} cancelled", ctx)
        seen.append(await ctx.activity(echo, f"undo {name}"), ctx)
        raise


def _branch(waits: Waits, seen: Seen) -> Callable[[Ctx], Coroutine[Any, Any, None]]:
    return lambda ctx: _told(waits(ctx, seen), waits.__name__, ctx, seen)


async def in_group(ctx: Ctx, seen: Seen) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.branch(_branch(run, seen)))
        group.create_task(ctx.branch(_branch(hear, seen)))


async def in_gather(ctx: Ctx, seen: Seen) -> None:
    await asyncio.gather(ctx.branch(_branch(sleep, seen)), ctx.branch(_branch(run, seen)))


async def in_join(ctx: Ctx, seen: Seen) -> None:
    await ctx.join(_branch(hear, seen), ctx.activity(echo, "beside"))


async def in_timeout(ctx: Ctx, seen: Seen) -> None:
    try:
        async with ctx.timeout(0.5):
            await _told(run(ctx, seen), "run", ctx, seen)
            await _told(hear(ctx, seen), "hear", ctx, seen)
    except TimeoutError:
        seen.append("too late", ctx)


async def beside_a_task(ctx: Ctx, seen: Seen) -> None:
    own = asyncio.ensure_future(ctx.branch(_branch(run, seen)))
    try:
        await ctx.sleep(90)
    finally:
        await asyncio.wait([own])
        seen.append(f"cancelled {own.cancelled()}", ctx)


async def in_turns(ctx: Ctx, seen: Seen) -> None:
    async def turn(ctx: Ctx, number: int) -> Turn:
        await _told(hear(ctx, seen) if number == 0 else sleep(ctx, seen), f"turn {number}", ctx, seen)
        return pgflow.Break(number) if number == 1 else pgflow.Continue(number + 1)

    seen.append(await ctx.loop(turn, 0, commit_interval=1), ctx)


async def in_turns_that_go_on(ctx: Ctx, seen: Seen) -> None:
    async def turn(ctx: Ctx, number: int) -> Turn:
        try:
            seen.append(await ctx.activity(echo, f"turn {number}"), ctx)
        except asyncio.CancelledError:
            seen.append("caught", ctx)
        return pgflow.Break(number) if number == 2 else pgflow.Continue(number + 1)

    seen.append(await ctx.loop(turn, 0, commit_interval=2), ctx)


async def in_turns_beside_a_branch(ctx: Ctx, seen: Seen) -> None:
    """What the loop's turn catches reaches the branch beside it, and the code around both, even when the turn is
    forgotten.
    """

    async def turns(branch: Ctx) -> None:
        await in_turns_that_go_on(branch, seen)

    await asyncio.gather(ctx.branch(turns), ctx.branch(_branch(sleep, seen)), return_exceptions=True)


def _named(*waits: Waits) -> dict[str, Program]:
    return {
        f"{one.__name__} {'returns' if r else 'raises'}": compensating(one, r) for one in waits for r in (False, True)
    }


LISTENING = _named(hear, hear_in_time, hear_many, in_group, in_join, in_timeout, in_turns)
OTHERS = _named(run, sleep, child, detached, in_gather, beside_a_task)
CAUGHT = _named(in_turns_that_go_on) | {
    "beside a branch, raises": compensating(in_turns_beside_a_branch, returns=False)
}
