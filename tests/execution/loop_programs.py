"""Small programs about loops: what replay skips, and what happens beside it, is still seen in the same order."""

from __future__ import annotations

import asyncio
from typing import Any

import pgflow
from tests.execution.lives import Program, Seen
from tests.execution.programs import echo, fails

Ctx = pgflow.WorkflowContext
Turn = pgflow.Continue[int] | pgflow.Break[int]


def loser_that_catches(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A loop that loses a race is cancelled by the code, and its turn catches that."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(ctx: Ctx, number: int) -> Turn:
            try:
                await ctx.activity(echo, f"turn {number}")
            except asyncio.CancelledError:
                seen.append("caught", ctx)
            return pgflow.Break(number) if number == 1 else pgflow.Continue(number + 1)

        async def lap(branch: Ctx) -> int:
            return await branch.loop(turn, 0, commit_interval=2)

        race = [asyncio.ensure_future(ctx.branch(lap)), asyncio.ensure_future(ctx.activity(echo, "winner"))]
        _, late = await asyncio.wait(race, return_when=asyncio.FIRST_COMPLETED)
        for loser in late:
            loser.cancel()
        await asyncio.gather(*race, return_exceptions=True)
        seen.append([loser.cancelled() for loser in race])
        return str(await ctx.activity(echo, "after"))

    return program


def turns_beside_a_branch(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A loop that forgets after every turn, beside a branch, and a task that hears of each turn's end before the next
    begins.
    """

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        queue: asyncio.Queue[Ctx] = asyncio.Queue()
        ended: list[Ctx] = []

        async def hears() -> None:
            while True:
                seen.append("heard of its end", await queue.get())

        async def turn(ctx: Ctx, n: int) -> Turn:
            if ended:
                seen.append("another follows", ended.pop())
            seen.append(await ctx.activity(echo, f"turn {n}"), ctx)
            queue.put_nowait(ctx)
            ended.append(ctx)
            return pgflow.Break(n) if n == 2 else pgflow.Continue(n + 1)

        async def beside(branch: Ctx) -> None:
            seen.append(await branch.activity(echo, "beside"), branch)
            seen.append(branch.now(), branch)

        async def looping(branch: Ctx) -> int:
            value = await branch.loop(turn, 0, commit_interval=1, keep_iterations=1)
            seen.append(branch.now(), branch)
            return value

        hearing = asyncio.ensure_future(hears())
        values = await ctx.join(looping, beside)
        hearing.cancel()
        seen.append(f"{values[0]} {ctx.now()}")
        return str(await ctx.activity(echo, "after"))

    return program


def empty_turns(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Turns without a row, beside a result that a later life finds recorded."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(ctx: Ctx, n: int) -> Turn:
            if n < 2:
                seen.append(f"turn {n}", ctx)
                return pgflow.Continue(n + 1)
            seen.append(await ctx.activity(echo, f"turn {n}"), ctx)
            return pgflow.Break(n)

        async def looping(branch: Ctx) -> int:
            return await branch.loop(turn, 0)

        async def beside(branch: Ctx) -> None:
            seen.append(await branch.activity(echo, "beside"), branch)

        await ctx.join(looping, beside)
        return str(await ctx.activity(echo, "after"))

    return program


def time_beside_a_loop(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A loop, and a branch beside it that asks for the time of the body around both."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(ctx: Ctx, n: int) -> Turn:
            seen.append(await ctx.activity(echo, f"turn {n}"), ctx)
            return pgflow.Break(n) if n == 1 else pgflow.Continue(n + 1)

        async def beside(branch: Ctx) -> None:
            seen.append(await branch.activity(echo, "beside"), branch)
            seen.append(ctx.now(), branch)

        await asyncio.gather(ctx.loop(turn, 0, commit_interval=1), ctx.branch(beside))
        seen.append(ctx.now())
        return str(await ctx.activity(echo, "after"))

    return program


def turn_leaves_a_step(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Each turn leaves a step unfinished; the next begins when that is recorded."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> int:
        async def turn(ctx: Ctx, n: int) -> Turn:
            left = asyncio.ensure_future(ctx.activity(echo, f"left {n}"))
            seen.append(await ctx.activity(echo, f"kept {n}"), ctx)
            seen.append(f"{left.done()} {ctx.now()}", ctx)
            return pgflow.Break(n) if n == 1 else pgflow.Continue(n + 1)

        return await ctx.loop(turn, 0, commit_interval=1)

    return program


def loop_in_an_ended_branch(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A branch fails while the loop in it waits for the end of a turn: the loop goes no further."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(ctx: Ctx, n: int) -> Turn:
            left = asyncio.ensure_future(ctx.activity(echo, f"left {n}"))
            seen.append(await ctx.activity(echo, f"kept {n}"), ctx)
            return pgflow.Break(n) if left.done() or n == 1 else pgflow.Continue(n + 1)

        async def around(branch: Ctx) -> None:
            await asyncio.gather(branch.activity(fails, "b"), branch.loop(turn, 0, commit_interval=1))

        try:
            await ctx.branch(around)
        except pgflow.ActivityFailed:
            seen.append("failed")
        return str(await ctx.activity(echo, "after"))

    return program


def loop_cancelled_in_its_turn(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A deadline ends a loop in the middle of a turn; one that is caught lets the workflow go on."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(ctx: Ctx, n: int) -> Turn:
            seen.append(await ctx.activity(echo, f"turn {n}"), ctx)
            return pgflow.Break(n) if n == 1 else pgflow.Continue(n + 1)

        try:
            async with ctx.timeout(0.5):
                await ctx.loop(turn, 0, commit_interval=1, keep_iterations=0)
        except TimeoutError:
            seen.append("too late")
        return str(await ctx.activity(echo, "after"))

    return program


def turns_beside_a_failure(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """What comes first, a failure or the error of a later turn, decides; that turn makes no row before it raises."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(inner: Ctx, n: int) -> Turn:
            if n == 2:
                raise RuntimeError("the loop")
            left = asyncio.ensure_future(inner.sleep(0.5) if n else inner.activity(echo, "left"))
            left.cancelled()
            return pgflow.Continue(n + 1)

        try:
            await asyncio.gather(
                ctx.activity(fails, "the activity"),
                ctx.branch(lambda branch: branch.loop(turn, 0, commit_interval=1, keep_iterations=0)),
            )
        except (RuntimeError, pgflow.ActivityFailed) as error:
            seen.append(type(error).__name__, ctx)
        return str(await ctx.activity(echo, "after"))

    return program


def turns_that_catch(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A timeout fires in a turn that catches it; the loop goes on, and replay skips that turn."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def turn(inner: Ctx, n: int) -> Turn:
            try:
                await inner.activity(echo, "work")
            except asyncio.CancelledError:
                seen.append("caught", inner)
                await inner.activity(echo, "instead")
            return pgflow.Break(n) if n == 2 else pgflow.Continue(n + 1)

        try:
            async with ctx.timeout(0.5):
                seen.append(await ctx.loop(turn, 0, commit_interval=1, keep_iterations=0), ctx)
        except TimeoutError:
            seen.append("too late", ctx)
        return str(await ctx.activity(echo, "after"))

    return program


LOOPS: dict[str, Program] = {
    program.__name__: program
    for program in (
        loser_that_catches,
        turns_beside_a_branch,
        empty_turns,
        time_beside_a_loop,
        turn_leaves_a_step,
        loop_in_an_ended_branch,
        loop_cancelled_in_its_turn,
        turns_beside_a_failure,
        turns_that_catch,
    )
}
