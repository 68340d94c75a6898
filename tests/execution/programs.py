"""Programs that do things concurrently, and write down what they see in the order in which they see it.

Each is built anew for each life with a list to write to: what a life has seen, a later one must see again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pgflow
from tests.execution.lives import Program, Seen


@pgflow.activity
def echo(ctx: pgflow.ActivityContext, name: str) -> str:
    return name


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=3.0, jitter=False))
def second_time(ctx: pgflow.ActivityContext, name: str) -> str:
    if ctx.attempt == 1:
        raise RuntimeError("the first attempt")
    return name


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
def fails(ctx: pgflow.ActivityContext, name: str) -> str:
    raise RuntimeError(name)


def gathered(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> list[str]:
        async def noted(step: Any) -> str:
            value = str(await step)
            seen.append(value)
            return value

        steps = [ctx.activity(echo, "a"), ctx.sleep(0.5), ctx.activity(second_time, "b"), ctx.sleep(90)]
        values = list(await asyncio.gather(*[noted(step) for step in steps]))
        values.append(await ctx.activity(echo, "end"))
        return values

    return program


def joined(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> list[Any]:
        def line(name: str) -> Callable[[pgflow.WorkflowContext], Any]:
            async def walk(branch: pgflow.WorkflowContext) -> str:
                for i in range(2):
                    seen.append(await branch.activity(echo, f"{name}{i}"))
                return name

            return walk

        values = await ctx.join(line("a"), ctx.activity(echo, "b"), line("c"))
        seen.append("joined")
        return values

    return program


def task_group(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> str:
        async def noted(step: Any) -> None:
            try:
                seen.append(str(await step))
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        try:
            async with asyncio.TaskGroup() as group:
                for step in (ctx.activity(echo, "a"), ctx.activity(fails, "b"), ctx.activity(echo, "c")):
                    group.create_task(noted(step))
        except* pgflow.ActivityFailed:
            seen.append("failed")
        return str(await ctx.activity(echo, "after"))

    return program


def first_of(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> str:
        tasks = [asyncio.ensure_future(ctx.activity(echo, name)) for name in "abc"]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        seen.append("first " + ",".join(sorted(task.result() for task in done)))
        for task in pending:
            task.cancel()
        last = await ctx.activity(echo, "d")
        seen.append(last)
        return last

    return program


def as_they_come(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> str:
        steps = [asyncio.ensure_future(ctx.activity(echo, name)) for name in "ab"]
        steps.append(asyncio.ensure_future(ctx.activity(second_time, "late")))
        for step in asyncio.as_completed(steps):
            name = await step
            seen.append(name)
            seen.append(await ctx.activity(echo, name + "!"))
        return "done"

    return program


def timed(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> str:
        async def walk(branch: pgflow.WorkflowContext) -> None:
            for name in "xyz":
                seen.append(await branch.activity(echo, name))

        try:
            async with ctx.timeout(0.7):
                seen.append(await ctx.activity(echo, "a"))
                await ctx.join(ctx.activity(echo, "b"), walk, ctx.sleep(30))
                seen.append("in time")
        except TimeoutError:
            seen.append("too late")
        seen.append(await ctx.activity(echo, "after"))
        return "end"

    return program


def long_timed(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> str:
        try:
            async with ctx.timeout(60):
                async with ctx.timeout(3600):
                    await asyncio.gather(ctx.activity(second_time, "a"), ctx.sleep(20), ctx.sleep(100))
        except TimeoutError:
            seen.append("too late")
        else:
            seen.append("in time")
        try:
            async with ctx.timeout(60):
                seen.append(await ctx.activity(echo, "b"))
        except TimeoutError:
            seen.append("too late again")
        return "end"

    return program


def abandoned(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> str:
        async def walk(branch: pgflow.WorkflowContext) -> str:
            left = asyncio.ensure_future(branch.activity(echo, "left"))
            other = asyncio.ensure_future(branch.sleep(900))
            value = await branch.activity(echo, "kept")
            seen.append(f"{value} {left.done()} {other.done()}")
            return value

        both = await ctx.join(walk, ctx.activity(echo, "beside"), walk)
        seen.append(",".join(both))
        return str(await ctx.activity(echo, "after"))

    return program


def looped(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> int:
        async def inner(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            await ctx.activity(echo, f"inner {n}")
            return pgflow.Break(n) if n == 4 else pgflow.Continue(n + 1)

        async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            async def nested(branch: pgflow.WorkflowContext) -> int:
                return await branch.loop(inner, 0, commit_interval=2, keep_iterations=1)

            if n % 3 == 0:
                await ctx.join(nested, ctx.activity(echo, f"beside {n}"))
            elif n % 3 == 1:
                await ctx.activity(echo, f"turn {n}")
            return pgflow.Break(n) if n == 10 else pgflow.Continue(n + 1)

        result = await ctx.loop(turn, 0, commit_interval=3, keep_iterations=2)
        seen.append(f"loop {result}")
        return result

    return program


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (gathered, joined, task_group, first_of, as_they_come, timed, long_timed, abandoned, looped)
}
