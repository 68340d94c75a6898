"""Tasks of a run: in the same order in every life, and with other hashes than those of a thousand other runs."""

from __future__ import annotations

import asyncio
from typing import Any

from pgflow.execution.event_loop.event_loop import RunLoop
from pgflow.execution.event_loop.stage import stage


def tasks(seed: int, count: int) -> list[asyncio.Task[Any]]:
    loop = RunLoop(lambda: "a run", seed, lambda: 0.0, lambda error: None, lambda: False)  # type: ignore[abstract]

    async def nothing() -> None: ...

    made = [loop.create_task(nothing()) for _ in range(count)]
    with stage():
        loop.drain()
    return made


def positions(made: list[asyncio.Task[Any]]) -> list[int]:
    """Where the tasks of a list stand in a set of them."""
    return [made.index(task) for task in set(made)]


def test_a_set_of_tasks_has_the_same_order_in_every_life() -> None:
    for count in (2, 5, 50, 500):
        assert positions(tasks(7, count)) == positions(tasks(7, count))
        assert positions(tasks(7, count)) == positions(tasks(2**127 + 12345, count))


def test_first_tasks_of_many_runs_are_not_alike() -> None:
    """asyncio keeps all tasks of the process in one set."""
    first = [task for seed in range(1000) for task in tasks(seed, 1)]
    assert len({hash(task) for task in first}) == len(first)
