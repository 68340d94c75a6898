"""What asyncio offers between tasks does the same in every life, whatever the addresses in memory are."""

from __future__ import annotations

import asyncio
from typing import Any

import pgflow
from tests.execution.programs import echo
from tests.execution.simulator import World, finish

Ctx = pgflow.WorkflowContext


def lives_of(body: Any, count: int = 8) -> list[str]:
    """The outputs of so many workflows with this body, while memory is in ever other states."""
    outputs, litter = [], []
    for n in range(count):
        litter.append([object() for _ in range(97 * n)])
        outputs.append(str(finish(World(pgflow.workflow(body))).output))
        litter[n // 2].clear()
    return outputs


def test_tasks_are_cancelled_and_named_in_the_same_order() -> None:
    async def body(ctx: Ctx) -> list[str]:
        seen: list[str] = []

        async def waits(n: int) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                seen.append(f"{n} {task.get_name()}")
                raise

        async def stops() -> None:
            raise ValueError

        try:
            async with asyncio.TaskGroup() as group:
                for n in range(12):
                    group.create_task(waits(n))
                await ctx.activity(echo, "begun")
                group.create_task(stops())
        except* ValueError:
            seen.append("stopped")
        tasks = [asyncio.ensure_future(waits(n)) for n in range(12)]
        done, pending = await asyncio.wait(
            [*tasks, asyncio.ensure_future(ctx.activity(echo, "first"))], return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        await asyncio.wait(tasks)
        return seen

    assert len(set(lives_of(body))) == 1
