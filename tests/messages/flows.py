"""What publishes in these tests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

import pgflow


@pgflow.message
@dataclass
class Progress:
    done: int
    note: str = ""
    at: datetime = field(default_factory=lambda: datetime(2030, 1, 1, tzinfo=UTC))


@pgflow.message(name="other message")
class Other(BaseModel):
    value: int


@dataclass
class Undeclared:
    done: int


@pgflow.signal
@dataclass
class More:
    count: int


@pgflow.workflow
async def publish(ctx: pgflow.WorkflowContext, count: int, note: str = "", labels: dict[str, Any] | None = None) -> int:
    """So many messages, one after the other."""
    for done in range(count):
        await ctx.publish(Progress(done, note), tags=labels)
    return count


@pgflow.workflow
async def sizes(ctx: pgflow.WorkflowContext, letter: str, lengths: list[int]) -> None:
    """Messages of these lengths."""
    for done, length in enumerate(lengths):
        await ctx.publish(Progress(done, letter * length))


@pgflow.workflow
async def burst(ctx: pgflow.WorkflowContext, count: int) -> None:
    """So many messages in one write."""
    await asyncio.gather(*[ctx.publish(Progress(done), tags={"n": done % 3}) for done in range(count)])


@pgflow.workflow
async def on_demand(ctx: pgflow.WorkflowContext, note: str = "") -> int:
    """Messages whenever a signal asks for some, numbered through; 0 ends it."""
    sent = 0
    while (more := await ctx.listen(More)).count:
        for _ in range(more.count):
            await ctx.publish(Progress(sent, note), tags={"workflow": str(ctx.id)})
            sent += 1
    return sent


@pgflow.workflow
async def mistaken(ctx: pgflow.WorkflowContext, kind: str) -> str:
    """Tries to publish what is no message, then publishes one."""
    told = "nothing"
    try:
        if kind == "undeclared":
            await ctx.publish(Undeclared(1))
        elif kind == "class":
            await ctx.publish(Progress)
        elif kind == "large":
            await ctx.publish(Progress(1, "x" * 2_000_000))
        elif kind == "deep tags":
            await ctx.publish(Progress(1), tags={"a": {"b": 1}})
        else:
            await ctx.publish(Progress(1), tags={"a": "x" * 5_000})
    except (TypeError, ValueError, pgflow.SerializationError) as error:
        told = f"{type(error).__name__}: {error}"
    await ctx.publish(Other(value=7))
    return told


ALL: list[pgflow.Workflow[Any, Any]] = [publish, sizes, burst, on_demand, mistaken]
