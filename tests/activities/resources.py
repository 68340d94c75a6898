"""Activities that share objects, for `test_resources.py` and for worker processes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pgflow

ONCE = pgflow.RetryPolicy(max_attempts=1)

notes: list[str] = []
"""What `linger` has come to."""

go_on = threading.Event()
"""Set when it may end."""


class Pool:
    """A resource that counts who takes it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = 0

    def take(self) -> str:
        self.taken += 1
        return self.name


class SlowPool(Pool):
    """One that is derived from it."""


class Purse:
    """What nobody gives."""

    name = "purse"


@pgflow.activity(retry=ONCE)
async def take(ctx: pgflow.ActivityContext) -> str:
    return ctx.resource(Pool).take()


@pgflow.activity(retry=ONCE)
def take_in_thread(ctx: pgflow.ActivityContext) -> str:
    return ctx.resource(Pool).take()


@pgflow.activity(transactional=True, retry=ONCE)
async def take_in_transaction(ctx: pgflow.ActivityContext) -> str:
    return ctx.resource(Pool).take()


@pgflow.activity(transactional=True, retry=ONCE)
def take_in_both(ctx: pgflow.ActivityContext) -> str:
    return ctx.resource(Pool).take()


@pgflow.workflow
async def taking(ctx: pgflow.WorkflowContext) -> list[str]:
    sorts = (take, take_in_thread, take_in_transaction, take_in_both)
    return [await ctx.activity(one) for one in sorts]


@pgflow.activity(retry=ONCE)
async def ask(ctx: pgflow.ActivityContext) -> str:
    return ctx.resource(Purse).name


@pgflow.workflow
async def asking(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(ask)


class Lender:
    """A class whose activity its subclasses override."""

    @pgflow.activity(retry=ONCE)
    async def lend(self, ctx: pgflow.ActivityContext, cents: int) -> str:
        raise NotImplementedError


class Bank(Lender):
    """One that does, with a plain method."""

    async def lend(self, ctx: pgflow.ActivityContext, cents: int) -> str:  # type: ignore[override]  # no activity
        return f"a bank lends {cents}"


class Gateway:
    """An object whose methods are activities."""

    def __init__(self, url: str) -> None:
        self.url = url

    @pgflow.activity(retry=ONCE)
    async def charge(self, ctx: pgflow.ActivityContext, cents: int) -> str:
        await asyncio.sleep(0)
        return f"{self.url} {cents}"

    @pgflow.activity(retry=ONCE)
    def refund(self, ctx: pgflow.ActivityContext, cents: int) -> str:
        return f"{self.url} refunds {cents}"

    @pgflow.activity(transactional=True, retry=ONCE)
    async def book(self, ctx: pgflow.ActivityContext) -> int:
        (one,) = await (await ctx.connection.execute("SELECT 1")).fetchone()
        return int(one)


@pgflow.workflow
async def paying(ctx: pgflow.WorkflowContext, cents: int) -> list[Any]:
    return [
        await ctx.activity(Gateway.charge, cents),
        await ctx.activity(Gateway.refund, cents),
        await ctx.activity(Gateway.charge.options(name="fee", timeout=5), cents=cents + 1),
        await ctx.activity(Gateway.book.options(name="booked")),
        await ctx.activity(Lender.lend, cents + 2),
    ]


@pgflow.workflow
async def paying_in_memory(ctx: pgflow.WorkflowContext, cents: int) -> list[str]:
    return [await ctx.activity(Gateway.charge, cents), await ctx.activity(Gateway.refund, cents)]


@pgflow.workflow
async def astray(ctx: pgflow.WorkflowContext) -> str:
    step: Any = Gateway("mine").charge
    return str(await ctx.activity(step, 7))


@pgflow.activity(retry=ONCE, timeout=None)
async def linger(ctx: pgflow.ActivityContext) -> None:
    ctx.resource(Pool)
    notes.append("begun")
    try:
        while not go_on.is_set():
            await asyncio.sleep(0.01)
    finally:
        notes.append("ended")


@pgflow.workflow
async def lingering(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(linger)


@pgflow.workflow
async def nothing(ctx: pgflow.WorkflowContext) -> None: ...


@asynccontextmanager
async def lifespan() -> AsyncIterator[Pool]:
    print("entered", flush=True)
    yield Pool("of the lifespan")
    print("left", flush=True)


@asynccontextmanager
async def broken() -> AsyncIterator[None]:
    raise ConnectionError("no bank")
    yield


ALL: list[pgflow.Workflow[Any, Any]] = [taking, asking, paying, astray, lingering, nothing]
