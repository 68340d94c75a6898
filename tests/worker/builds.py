"""Workflows that tell which worker ran them, for `test_builds.py` and for worker processes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pgflow

go_on: set[str] = set()
"""What may end, of what is held up in this process."""
begun: list[str] = []
"""What has begun in this process."""


class Mark:
    """Which worker this is."""

    def __init__(self, name: str) -> None:
        self.name = name


@pgflow.activity
async def who(ctx: pgflow.ActivityContext) -> str:
    return ctx.resource(Mark).name


@pgflow.activity(timeout=None)
async def hold(ctx: pgflow.ActivityContext, name: str) -> str:
    """Held up until it may end."""
    begun.append(name)
    while name not in go_on:
        await asyncio.sleep(0.005)
    return ctx.resource(Mark).name


@pgflow.workflow
async def asked(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(who)


@pgflow.workflow
async def other(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(who)


@pgflow.workflow
async def staying(ctx: pgflow.WorkflowContext, name: str) -> list[str]:
    """Twice without a sleep in between, and once after it."""
    found = [await ctx.activity(hold, name), await ctx.activity(who)]
    await ctx.sleep(1.5)
    return [*found, await ctx.activity(who)]


ALL: list[pgflow.Workflow[Any, Any]] = [asked, other, staying]
