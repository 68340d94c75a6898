"""Programs with children and signals, small ones to explore and larger ones for random lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pgflow
from tests.execution.lives import Program, Seen
from tests.execution.neighbours import NOBODY
from tests.execution.programs import echo

Ctx = pgflow.WorkflowContext
Turn = pgflow.Continue[int] | pgflow.Break[int]


@pgflow.signal
@dataclass
class Hello:
    number: int


def one_child(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        child = await ctx.dispatch("child", number=1)
        seen.append("started")
        seen.append(await child.output())
        return str(await ctx.activity(echo, "after"))

    return program


def two_children(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        children = await asyncio.gather(*[ctx.dispatch("child", number=number) for number in range(2)])
        for output in asyncio.as_completed([child.output() for child in children]):
            seen.append((await output)["number"])
        return "both"

    return program


def one_that_fails(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        child = await ctx.dispatch("failing")
        try:
            await child.output()
        except pgflow.WorkflowFailed as error:
            seen.append(error.error_message)
        return "caught"

    return program


def beside_an_activity(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def walk(branch: Ctx) -> None:
            child = await branch.dispatch("child", number=1)
            seen.append("started", branch)
            seen.append(await child.output(), branch)

        async def beside(branch: Ctx) -> None:
            seen.append(await branch.activity(echo, "beside"), branch)

        await ctx.join(walk, beside)
        return "joined"

    return program


def in_time(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        try:
            async with ctx.timeout(0.5):
                child = await ctx.dispatch("child", number=1)
                seen.append("started")
                seen.append(await child.output())
        except TimeoutError:
            seen.append("too late")
        return str(await ctx.activity(echo, "after"))

    return program


def left_behind(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A branch ends while a child is being started, and another is awaited."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def walk(branch: Ctx) -> str:
            left = asyncio.ensure_future(branch.dispatch("child", number=1))
            value = await branch.activity(echo, "kept")
            seen.append(f"{value} {left.done()}", branch)
            return value

        seen.append(await ctx.branch(walk))
        return "end"

    return program


def dropped(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """The code cancels what waits for a child."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        child = await ctx.dispatch("child", number=1)
        wait = asyncio.ensure_future(child.output())
        await ctx.activity(echo, "meanwhile")
        wait.cancel()
        found = await asyncio.gather(wait, return_exceptions=True)
        seen.append(type(found[0]).__name__)
        return "end"

    return program


def called_off(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """The code cancels what starts a child."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        start = asyncio.ensure_future(ctx.dispatch("child", number=1))
        await ctx.activity(echo, "meanwhile")
        start.cancel()
        found = await asyncio.gather(start, return_exceptions=True)
        seen.append(type(found[0]).__name__)
        return "end"

    return program


def signals(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        both = await asyncio.gather(ctx.signal(Hello(1), to=UUID(int=5)), ctx.activity(echo, "beside"))
        seen.append(both)
        try:
            await ctx.signal(Hello(2), to=NOBODY)
        except pgflow.WorkflowNotFound:
            seen.append("nobody")
        seen.append(await ctx.signal(Hello(3), to=NOBODY, missing_ok=True))
        return "sent"

    return program


def two_senders(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Two branches that always have something on its way to another workflow."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def walk(branch: Ctx) -> None:
            for number in range(2):
                await branch.signal(Hello(number), to=UUID(int=5))
                seen.append(number, branch)

        await ctx.join(walk, walk)
        return "sent"

    return program


def two_ears(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Of several listens, the lowest location takes the first signal."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        async def noted(step: Any, expected: object) -> None:
            heard = await step
            assert heard == expected
            seen.append(heard)

        first, second = ctx.listen(Hello), ctx.listen_many(Hello, limit=1)
        beside = ctx.activity(echo, "beside")
        await asyncio.gather(noted(first, Hello(0)), noted(second, [Hello(1)]), noted(beside, "beside"))
        return "heard"

    return program


def patience(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        seen.append(await ctx.listen(Hello, timeout=0.5))
        seen.append(await ctx.listen_many(Hello, timeout=90))
        return str(await ctx.activity(echo, "after"))

    return program


def ears_in_turns(seen: Seen) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow
    async def program(ctx: Ctx) -> int:
        async def turn(ctx: Ctx, number: int) -> Turn:
            heard = await ctx.listen(Hello)
            assert heard == Hello(number)
            seen.append(heard, ctx)
            return pgflow.Break(number) if number == 1 else pgflow.Continue(number + 1)

        return await ctx.loop(turn, 0, commit_interval=1, keep_iterations=0)

    return program


def cleaned_up(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Cancelled, it tells somebody."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        try:
            child = await ctx.dispatch("child", number=1)
            seen.append("started")
            seen.append(await child.output())
        except asyncio.CancelledError:
            seen.append("cancelled")
            await ctx.signal(Hello(1), to=UUID(int=5))
            seen.append("told")
            raise
        except pgflow.WorkflowCancelled:
            seen.append("the child was cancelled")
        return "end"

    return program


def busy(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """Turns with children in branches, signals, deadlines and sleeps."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> int:
        async def turn(ctx: Ctx, number: int) -> Turn:
            def walk(name: str) -> Callable[[Ctx], Any]:
                async def walking(branch: Ctx) -> int:
                    child = await branch.dispatch("child", number=number, name=name)
                    await branch.signal(Hello(number), to=UUID(int=5))
                    seen.append(f"{name} sent", branch)
                    try:
                        async with branch.timeout(90):
                            seen.append((await child.output())["name"], branch)
                    except TimeoutError:
                        seen.append("late", branch)
                    return number

                return walking

            try:
                failing = await ctx.dispatch("failing", detached=True)
                steps: list[Awaitable[Any] | Callable[[Ctx], Awaitable[Any]]] = [
                    walk("a"),
                    walk("b"),
                    ctx.activity(echo, "c"),
                ]
                await ctx.join(*steps, *([failing.output()] if number % 2 else []))
            except pgflow.WorkflowFailed as error:
                seen.append(error.error_message, ctx)
            await ctx.sleep(5)
            return pgflow.Break(number) if number == 4 else pgflow.Continue(number + 1)

        return await ctx.loop(turn, 0, commit_interval=2, keep_iterations=1)

    return program


SMALL: dict[str, Program] = {
    program.__name__: program
    for program in (
        one_child,
        two_children,
        one_that_fails,
        beside_an_activity,
        in_time,
        left_behind,
        dropped,
        called_off,
        signals,
    )
}

HEARING: dict[str, Program] = {program.__name__: program for program in (two_ears, patience, ears_in_turns)}

CANCELLED: dict[str, Program] = {
    program.__name__: program for program in (one_child, one_that_fails, signals, in_time, two_senders, cleaned_up)
}

LARGE: dict[str, Program] = SMALL | {program.__name__: program for program in (cleaned_up, busy)}
