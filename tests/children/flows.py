"""Workflows with children, for the tests of children."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pgflow


@dataclass
class Doubled:
    value: int


@pgflow.signal
@dataclass
class Go:
    pass


@pgflow.activity
async def double(ctx: pgflow.ActivityContext, number: int) -> int:
    return 2 * number


@pgflow.workflow
async def doubling(ctx: pgflow.WorkflowContext, number: int) -> Doubled:
    return Doubled(await ctx.activity(double, number))


@pgflow.workflow
async def failing(ctx: pgflow.WorkflowContext, text: str) -> None:
    raise ValueError(text)


@pgflow.workflow
async def waiting(ctx: pgflow.WorkflowContext) -> str:
    await ctx.listen(Go)
    return "went"


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext, number: int) -> int:
    child = await ctx.dispatch(doubling, number, tags={"number": number})
    doubled = await child.output()
    assert isinstance(doubled, Doubled)
    return doubled.value


@pgflow.workflow
async def by_name(ctx: pgflow.WorkflowContext, number: int) -> int:
    child = await ctx.dispatch("doubling", number=number)
    found: int = (await child.output())["value"]
    return found


@pgflow.workflow
async def family(ctx: pgflow.WorkflowContext, count: int) -> int:
    """A fan-out and back."""
    children = await asyncio.gather(*[ctx.dispatch(doubling, i) for i in range(count)])
    outputs = await asyncio.gather(*[child.output() for child in children])
    return sum(doubled.value for doubled in outputs)


@pgflow.workflow
async def branches(ctx: pgflow.WorkflowContext, count: int) -> list[int]:
    """Children started here and awaited in branches, and the other way round."""
    children = [await ctx.dispatch(doubling, i) for i in range(count)]

    async def await_all(branch: pgflow.WorkflowContext) -> list[int]:
        return [(await child.output()).value for child in children]

    async def start(branch: pgflow.WorkflowContext) -> pgflow.ChildHandle[Doubled]:
        return await branch.dispatch(doubling, 100)

    values, handle = await ctx.join(await_all, start)
    return [*values, (await handle.output()).value]


@pgflow.workflow
async def generations(ctx: pgflow.WorkflowContext, depth: int) -> int:
    if depth == 0:
        return 1
    return 1 + await (await ctx.dispatch(generations, depth - 1)).output()


@pgflow.workflow
async def catching(ctx: pgflow.WorkflowContext, text: str) -> list[str]:
    child = await ctx.dispatch(failing, text)
    said: list[str] = []
    try:
        await child.output()
    except pgflow.WorkflowFailed as error:
        await ctx.sleep(1.1)  # over a sleep: the replay raises the same
        said += [error.error_type, error.error_message, str(error.workflow_id == child.id)]
    return said


@pgflow.workflow
async def passing_on(ctx: pgflow.WorkflowContext, text: str) -> None:
    await (await ctx.dispatch(failing, text)).output()


@pgflow.workflow
async def over_one_that_waits(ctx: pgflow.WorkflowContext) -> str:
    child = await ctx.dispatch(waiting)
    try:
        return await child.output()
    except pgflow.WorkflowCancelled as error:
        return f"cancelled {error.workflow_id}"


@pgflow.workflow
async def in_time(ctx: pgflow.WorkflowContext) -> str:
    child = await ctx.dispatch(waiting, detached=True)
    try:
        async with ctx.timeout(1.2):
            return await child.output()
    except TimeoutError:
        return "too late"


@pgflow.workflow
async def turns(ctx: pgflow.WorkflowContext, count: int) -> int:
    async def turn(
        ctx: pgflow.WorkflowContext, state: tuple[int, int]
    ) -> pgflow.Continue[tuple[int, int]] | pgflow.Break[int]:
        index, total = state
        if index == count:
            return pgflow.Break(total)
        child = await ctx.dispatch(doubling, index)
        return pgflow.Continue((index + 1, total + (await child.output()).value))

    return await ctx.loop(turn, (0, 0), commit_interval=2)


@pgflow.workflow
async def forgetful(ctx: pgflow.WorkflowContext, detached: bool) -> UUID:
    return (await ctx.dispatch(waiting, detached=detached)).id


@pgflow.workflow
async def only_one(ctx: pgflow.WorkflowContext) -> str:
    child = await ctx.dispatch(waiting, tags={"only": "one"}, unique=True)
    return f"{child.id} {await child.output()}"


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [
    doubling,
    failing,
    waiting,
    parent,
    by_name,
    family,
    branches,
    generations,
    catching,
    passing_on,
    over_one_that_waits,
    in_time,
    turns,
    forgetful,
    only_one,
]
