"""The workflows that are measured."""

from __future__ import annotations

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


@pgflow.workflow
async def sleeper(ctx: pgflow.WorkflowContext, until: datetime) -> None:
    """Sleeps."""
    await ctx.sleep_until(until)
