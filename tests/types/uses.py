"""Uses that a type checker accepts, and, where a comment expects its error, refuses. Never executed."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, assert_type
from uuid import UUID

import pgflow
from pgflow.testing import Ran, run


@dataclass
class Order:
    number: int


@pgflow.activity
async def charge(ctx: pgflow.ActivityContext, order: Order, *, fast: bool = False) -> str:
    return "receipt"


@pgflow.activity(timeout=5)
def pack(ctx: pgflow.ActivityContext, *items: str) -> int:
    return len(items)


class Gateway:
    @pgflow.activity
    async def refund(self, ctx: pgflow.ActivityContext, order: Order) -> str:
        return assert_type(ctx.resource(Gateway), Gateway).__class__.__name__

    @pgflow.activity(timeout=5)
    def count(self, ctx: pgflow.ActivityContext) -> int:
        return 7


@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext, order: Order, queue: str = "orders", *, id: int = 0) -> str:
    step = assert_type(ctx.activity(charge, order), Coroutine[Any, Any, str])
    await step
    assert_type(await ctx.activity(charge.options(timeout=3), order, fast=True), str)
    assert_type(await ctx.activity(pack, "a", "b"), int)
    assert_type(await ctx.activity(Gateway.refund, order), str)
    assert_type(await ctx.activity(Gateway.count.options(timeout=1)), int)
    await ctx.activity(Gateway.refund)  # type: ignore[call-arg]
    await ctx.activity(Gateway().refund, order)  # type: ignore[arg-type]
    await ctx.activity(charge, 7)  # type: ignore[arg-type]
    await ctx.activity(charge, order, slow=True)  # type: ignore[call-arg]
    await ctx.activity(charge)  # type: ignore[call-arg]
    await ctx.activity(checkout, order)  # type: ignore[arg-type]
    await charge(ctx, order)  # type: ignore[arg-type]

    assert_type(await ctx.inline(checkout, order, queue="x"), str)
    await ctx.inline(checkout, "order")  # type: ignore[arg-type]
    await checkout(ctx, order)  # type: ignore[operator]

    child = await ctx.start(checkout.options(tags={"customer": 7}, queue="slow", detached=True), order, queue="x", id=3)
    assert_type(child, pgflow.ChildHandle[str])
    assert_type(await child.output(), str)
    await ctx.start(checkout, order, queue=7)  # type: ignore[arg-type]
    assert_type(await ctx.start("checkout", order=order), pgflow.ChildHandle[Any])
    assert_type(await ctx.dispatch(checkout.options(tags={}), order), pgflow.ChildHandle[str])
    assert_type(await ctx.loop(pages, []), int)
    assert_type(await ctx.loop(lambda ctx, seen: pages(ctx, seen), [order]), int)
    await ctx.loop(pages, ["order"])  # type: ignore[arg-type]
    await ctx.loop(pages, 7)  # type: ignore[arg-type]
    assert_type(await ctx.loop(untyped, 7), Any)
    found: pgflow.Break[object] = pgflow.Break(7)
    return str(found.value)


async def untyped(ctx: pgflow.WorkflowContext, state: int) -> Any: ...


async def pages(ctx: pgflow.WorkflowContext, seen: list[Order]) -> pgflow.Continue[list[Order]] | pgflow.Break[int]:
    return pgflow.Break(len(seen)) if seen else pgflow.Continue([Order(7)])


async def start(client: pgflow.Client, order: Order) -> None:
    handle = await client.start(checkout, order)
    assert_type(handle, pgflow.WorkflowHandle[str])
    assert_type(await handle.output(), str)
    assert_type(await client.start(checkout.options(queue="slow"), order, queue="x", id=3), pgflow.WorkflowHandle[str])
    await client.start(checkout)  # type: ignore[call-overload]
    await client.start(checkout, 7)  # type: ignore[call-overload]
    await client.start(checkout, order, "x", 3)  # type: ignore[call-overload]
    await client.start(checkout, order, colour="red")  # type: ignore[call-arg]
    checkout.options(colour="red")  # type: ignore[call-arg]
    checkout.options(priority="high")  # type: ignore[arg-type]
    assert_type(await client.start("checkout", order=order), pgflow.WorkflowHandle[Any])
    assert_type(await client.dispatch(checkout, order, priority=3, id=UUID(int=1)), pgflow.WorkflowHandle[str])
    await client.dispatch(charge, order)  # type: ignore[call-overload]


def start_synchronously(client: pgflow.SyncClient, order: Order) -> None:
    assert_type(client.start(checkout.options(unique=True), order), pgflow.SyncWorkflowHandle[str])
    client.start(checkout, 7)  # type: ignore[call-overload]


def in_a_unit_test(order: Order) -> None:
    assert_type(run(checkout, order), Ran[str])
    assert_type(run(checkout, order).output, str)
