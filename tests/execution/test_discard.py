"""A run that leaves memory: its frames are closed, and nothing that they do reaches the worker's loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pgflow
from tests.execution.programs import echo
from tests.execution.simulator import Incarnation, World


async def test_what_a_finally_begins_is_not_begun_on_the_workers_loop() -> None:
    """A crash of the simulator is what the loss of a lease is to a worker: `discard`, with the worker's
    loop running.
    """
    workers = asyncio.get_running_loop()
    met: list[asyncio.AbstractEventLoop] = []
    refused: list[BaseException] = []
    left: list[str] = []

    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> None:
        async def later() -> None:
            left.append("a task ran")

        try:
            await ctx.activity(echo, "a")
        finally:
            loop = asyncio.get_running_loop()
            met.append(loop)
            asyncio.ensure_future(later())
            loop.call_soon(left.append, "a callback ran")
            try:
                await ctx.activity(echo, "b")
            except BaseException as error:
                refused.append(error)

    life = Incarnation(World(program))
    before = asyncio.all_tasks()
    life.crash()
    assert asyncio.get_running_loop() is workers
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(met) == 1 and met[0] is not workers
    assert [type(error) for error in refused] == [pgflow.LeaseLost]
    assert asyncio.all_tasks() == before and left == []


async def test_an_asynchronous_generator_is_not_handed_to_the_workers_loop() -> None:
    workers = asyncio.get_running_loop()
    kept: list[Any] = []

    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> None:
        async def numbers() -> Any:
            yield 1

        try:
            await ctx.activity(echo, "a")
        finally:
            kept.append(numbers())
            await anext(kept[0])

    Incarnation(World(program)).crash()
    assert kept and not workers._asyncgens  # type: ignore[attr-defined]  # what the loop would close at its own end
