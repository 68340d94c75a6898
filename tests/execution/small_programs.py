"""Small programs, each about one thing that is easily seen in another order; small enough to explore every state."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pgflow
from tests.execution.lives import Program, Seen
from tests.execution.loop_programs import LOOPS
from tests.execution.programs import echo, fails, second_time

Ctx = pgflow.WorkflowContext
Turn = pgflow.Continue[int] | pgflow.Break[int]


def beside_an_end(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A branch ends while a step that it leaves has its result on its way, beside another branch."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def short(branch: Ctx) -> None:
            left = asyncio.ensure_future(branch.activity(echo, "left"))
            seen.append(await branch.activity(echo, "kept"), branch)
            left.cancelled()

        async def ended() -> None:
            await ctx_short
            seen.append("ended")

        async def beside(branch: Ctx) -> None:
            seen.append(await branch.activity(echo, "beside"), branch)

        ctx_short = ctx.branch(short)
        await asyncio.gather(ended(), ctx.branch(beside))
        seen.append(ctx.now())
        return str(await ctx.activity(echo, "after"))

    return program


def block_left_by_another(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A timeout's block is left because of a result that it does not cover, at the moment when it fires."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        event = asyncio.Event()

        async def sets(step: Any) -> None:
            seen.append(await step)
            event.set()

        setting = asyncio.ensure_future(sets(ctx.activity(echo, "outside")))
        try:
            async with ctx.timeout(0.5):
                covered = asyncio.ensure_future(ctx.sleep(0.9))
                await event.wait()
                seen.append("in time")
        except TimeoutError:
            seen.append("too late")
        await asyncio.wait([covered])
        seen.append(f"covered {covered.cancelled()} {ctx.now()}")
        await setting
        return str(await ctx.activity(echo, "after"))

    return program


def caught_in_the_block(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """The code catches what the deadline raises and goes on, inside the block and after it."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        try:
            async with ctx.timeout(0.5):
                try:
                    seen.append(await ctx.activity(echo, "slow"))
                except asyncio.CancelledError:
                    seen.append(await ctx.activity(echo, "clean up"))
                    raise
        except TimeoutError:
            seen.append(f"too late {ctx.now()}")
        try:
            async with ctx.timeout(0.5):
                seen.append(await ctx.activity(echo, "slow again"))
        except TimeoutError:
            seen.append("too late again")
        return str(await ctx.activity(echo, "after"))

    return program


def timeout_within_timeout(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Both deadlines pass in one moment."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        try:
            async with ctx.timeout(0.5):
                try:
                    async with ctx.timeout(0.5):
                        await asyncio.gather(ctx.activity(echo, "a"), ctx.sleep(0.5))
                        seen.append("both")
                except TimeoutError:
                    seen.append("inner")
                seen.append(await ctx.activity(echo, "between"))
        except TimeoutError:
            seen.append("outer")
        return str(await ctx.activity(echo, "after"))

    return program


def late_after_a_failed_group(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A timeout fires after a group within it has failed; that the group cancelled its own wait is
    forgotten by then.
    """

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        try:
            async with ctx.timeout(30):
                try:
                    async with asyncio.TaskGroup() as group:
                        for step in (ctx.activity(echo, "a"), ctx.activity(fails, "b")):
                            group.create_task(step)
                except* pgflow.ActivityFailed:
                    seen.append("failed", ctx)
                await ctx.sleep(60)
        except TimeoutError:
            seen.append("too late", ctx)
        return str(await ctx.activity(echo, "after"))

    return program


def group_of_branches(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """The first failure cancels the rest of a TaskGroup, in an order that every life repeats."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        def line(name: str) -> Any:
            async def walk(branch: Ctx) -> None:
                try:
                    seen.append(await branch.activity(fails if name == "b" else echo, name), branch)
                except asyncio.CancelledError:
                    seen.append(f"{name} cancelled", branch)
                    raise

            return walk

        try:
            async with asyncio.TaskGroup() as group:
                for name in "abc":
                    group.create_task(ctx.branch(line(name)))
        except* pgflow.ActivityFailed as failures:
            seen.append(f"{len(failures.exceptions)} failed")
        return str(await ctx.activity(echo, "after"))

    return program


def first_wins(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """The first to complete decides, the rest is left running."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        steps = [ctx.activity(echo, "a"), ctx.sleep(0.3), ctx.activity(second_time, "b")]
        tasks = [asyncio.ensure_future(step) for step in steps]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        seen.append(sorted(tasks.index(task) for task in done))
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        seen.append(sorted(tasks.index(task) for task in done))
        return str(await ctx.activity(echo, "after"))

    return program


def failures_joined(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A join of which two fail: the first in the order of the arguments is raised."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def walk(branch: Ctx) -> None:
            seen.append(await branch.activity(echo, "walk"), branch)
            await branch.activity(fails, "second")

        try:
            await ctx.join(ctx.activity(echo, "a"), walk, ctx.activity(fails, "third"))
        except pgflow.ActivityFailed as error:
            seen.append(error.error_message)
        return str(await ctx.activity(echo, "after"))

    return program


def due_together(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Sleeps that fall due in one moment, short ones and long ones, and none at all."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def noted(name: str, step: Any) -> None:
            await step
            seen.append(f"{name} {ctx.now()}")

        until = ctx.created_at + timedelta(seconds=5)
        steps = [ctx.sleep_until(until), ctx.sleep_until(until), ctx.sleep(0.5), ctx.sleep(0)]
        await asyncio.gather(*[noted(name, step) for name, step in zip("abcd", steps, strict=True)])
        return str(await ctx.activity(echo, "after"))

    return program


def never_awaited(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Steps that are called and never awaited, or awaited in another order, or by a task that ends before it begins."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        first, never, second = ctx.activity(echo, "a"), ctx.activity(echo, "never"), ctx.activity(echo, "b")
        at_once = asyncio.ensure_future(ctx.activity(echo, "at once"))
        at_once.cancel()
        seen.append(await second)
        seen.append(await first)
        never.close()
        return str(await ctx.activity(echo, "after"))

    return program


def shielded(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A step that a cancellation does not reach, and one that it reaches."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        kept = asyncio.ensure_future(ctx.activity(echo, "kept"))

        async def waits() -> None:
            try:
                seen.append(await asyncio.shield(kept))
            except asyncio.CancelledError:
                seen.append("waits no more")

        waiting = asyncio.ensure_future(waits())
        gone = asyncio.ensure_future(ctx.activity(echo, "gone"))
        seen.append(await ctx.activity(echo, "a"))
        waiting.cancel()
        gone.cancel()
        seen.append(await kept)
        await asyncio.wait([waiting, gone])
        seen.append(gone.cancelled())
        return str(await ctx.activity(echo, "after"))

    return program


def deadlines_side_by_side(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Three deadlines pass in one moment, one of them within another: a branch ends while its inner one still fires."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        def late(inner: bool) -> Any:
            async def walk(branch: Ctx) -> None:
                try:
                    async with branch.timeout(0.5):
                        await (branch.activity(echo, "a") if inner else branch.sleep(0.5))
                        async with branch.timeout(0.002 if inner else 0.5):
                            await branch.activity(echo, "b")
                except TimeoutError:
                    seen.append("late", branch)

            return walk

        branches = [asyncio.ensure_future(ctx.branch(late(inner))) for inner in (False, True)]
        for number, ended in enumerate(asyncio.as_completed(branches)):
            await ended
            seen.append(f"ended {number}")
        return "end"

    return program


SMALL: dict[str, Program] = LOOPS | {
    program.__name__: program
    for program in (
        beside_an_end,
        block_left_by_another,
        caught_in_the_block,
        timeout_within_timeout,
        first_wins,
        failures_joined,
        late_after_a_failed_group,
        group_of_branches,
        due_together,
        deadlines_side_by_side,
        never_awaited,
        shielded,
    )
}
