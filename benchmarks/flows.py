"""The workflows that are measured."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pgflow


@pgflow.activity
async def nothing(ctx: pgflow.ActivityContext) -> int:
    """A step that costs nothing but its durability."""
    return 1


@pgflow.workflow
async def noop(ctx: pgflow.WorkflowContext) -> int:
    """A workflow without a step."""
    return 1


@pgflow.workflow
async def steps(ctx: pgflow.WorkflowContext) -> int:
    """Ten steps, one after the other."""
    total = 0
    for _ in range(10):
        total += await ctx.activity(nothing)
    return total


@pgflow.activity(timeout=3600)
async def holds(ctx: pgflow.ActivityContext) -> None:
    """Takes longer than any measurement."""
    await asyncio.sleep(3600)


@pgflow.workflow
async def holding(ctx: pgflow.WorkflowContext) -> None:
    """Is in an activity."""
    await ctx.activity(holds)


@pgflow.workflow
async def sleeper(ctx: pgflow.WorkflowContext, until: datetime) -> None:
    """Sleeps."""
    await ctx.sleep_until(until)


@pgflow.workflow
async def fan_out(ctx: pgflow.WorkflowContext, count: int) -> int:
    """So many children, all at once, and what they come to."""
    children = await asyncio.gather(*[ctx.dispatch(noop) for _ in range(count)])
    return sum(await asyncio.gather(*[child.output() for child in children]))


@pgflow.workflow
async def one_child(ctx: pgflow.WorkflowContext) -> int:
    """A child, and what it comes to."""
    return await (await ctx.dispatch(noop)).output()
