"""Forks of concurrent code: at every place, a copy of what came before in both orders, or a refusal; never one item's
result for another's.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any

import pytest

import pgflow
from tests.store.scene import Scene

SEEDS = int(os.environ.get("PGFLOW_FORKS", "4"))


KEYS: list[str] = []
"""The key of each attempt."""


@pgflow.activity
async def weigh(ctx: pgflow.ActivityContext, item: str, milliseconds: int) -> str:
    KEYS.append(ctx.idempotency_key)
    await asyncio.sleep(milliseconds / 1000)
    return f"weight of {item}"


def durations(seed: int) -> list[int]:
    return [random.Random(seed + place).choice([0, 0, 3, 10, 40]) for place in range(12)]


@pgflow.workflow
async def lanes(ctx: pgflow.WorkflowContext, seed: int) -> dict[str, str]:
    """Lanes take items from one queue: who takes which depends on the order of results."""
    queue = list(enumerate(durations(seed)))[:9]
    found: dict[str, str] = {}

    async def lane(ctx: pgflow.WorkflowContext) -> None:
        while queue:
            item, milliseconds = queue.pop(0)
            found[str(item)] = await ctx.activity(weigh, str(item), milliseconds)

    await ctx.join(lane, lane, lane)
    return found


@pgflow.workflow
async def races(ctx: pgflow.WorkflowContext, seed: int) -> dict[str, str]:
    """What wins a race decides what is begun next; losers are cancelled or go on."""
    took = durations(seed)
    found: dict[str, str] = {}
    running: dict[asyncio.Future[str], str] = {}
    items = [str(number) for number in range(9)]
    while items or running:
        while items and len(running) < 3:
            item = items.pop(0)
            running[asyncio.ensure_future(ctx.activity(weigh, item, took[int(item)]))] = item
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for future in sorted(done, key=running.__getitem__):
            found[running.pop(future)] = future.result()
        if len(found) == 4 and running:  # one is given up and begun anew, as the last
            future, item = next(iter(running.items()))
            del running[future]
            future.cancel()
            await asyncio.wait([future])
            items.append(item)
    return found


@pgflow.workflow
async def loops(ctx: pgflow.WorkflowContext, seed: int) -> dict[str, str]:
    """Loops side by side, whose turns are forgotten; the longest outlives the others, and one stands within a turn of
    another.
    """
    took = durations(seed)

    def turning(name: str, turns: int, keep: int) -> Any:
        async def turn(ctx: pgflow.WorkflowContext, state: dict[str, str]) -> Any:
            item = f"{name}{len(state)}"
            state = {**state, item: await ctx.activity(weigh, item, took[len(state)])}
            if name == "b" and len(state) == 2:
                state |= {key: value for key, value in (await inner(ctx)).items()}
            return pgflow.Break(state) if len(state) >= turns else pgflow.Continue(state)

        return lambda ctx: ctx.loop(turn, {}, commit_interval=1, keep_iterations=keep)

    async def inner(ctx: pgflow.WorkflowContext) -> dict[str, str]:
        return await turning("i", 2, 100)(ctx)  # type: ignore[no-any-return]

    async def a(ctx: pgflow.WorkflowContext) -> dict[str, str]:
        return await turning("a", 6, 100)(ctx)  # type: ignore[no-any-return]

    async def b(ctx: pgflow.WorkflowContext) -> dict[str, str]:
        return await turning("b", 5, 100)(ctx)  # type: ignore[no-any-return]

    async def c(ctx: pgflow.WorkflowContext) -> dict[str, str]:
        return await turning("c", 4, 1 if seed % 2 else 100)(ctx)  # type: ignore[no-any-return]

    found: dict[str, str] = {}
    for part in await ctx.join(c, a, b):
        found |= part
    return found


@pgflow.workflow
async def deadlines(ctx: pgflow.WorkflowContext, seed: int) -> dict[str, str]:
    """Blocks with deadlines, sleeps and version checks beside each other; who is first takes from the queue."""
    took = durations(seed)
    queue = [str(number) for number in range(6)]
    found: dict[str, str] = {}

    async def lane(ctx: pgflow.WorkflowContext) -> None:
        while queue:
            item = queue.pop(0)
            await ctx.check_version(1)
            try:
                async with ctx.timeout(3600):
                    await ctx.sleep(took[int(item)] / 1000)
                    found[item] = await ctx.activity(weigh, item, took[int(item) + 3])
            finally:
                await ctx.branch(lambda ctx: ctx.sleep(0.001))

    async with ctx.timeout(7200):
        await asyncio.gather(ctx.branch(lane), ctx.branch(lane))
    return found


WORKFLOWS = [lanes, races, loops, deadlines]
ITEMS = {
    "lanes": [str(n) for n in range(9)],
    "races": [str(n) for n in range(9)],
    "loops": [f"a{n}" for n in range(6)]
    + [f"b{n}" for n in (0, 1)]
    + ["b4"]
    + ["i0", "i1"]
    + [f"c{n}" for n in range(4)],
    "deadlines": [str(n) for n in range(6)],
}


@pytest.mark.parametrize("cached", [1000, 0])
@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
async def test_at_every_place(dsn: str, workflow: Any, cached: int) -> None:
    scene = Scene(dsn)
    forks = refused = 0
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        for seed in range(SEEDS):
            origin = await client.dispatch(workflow, 101 * seed + cached)
            wanted = {item: f"weight of {item}" for item in ITEMS[workflow.name]}
            assert await origin.output(timeout=60) == wanted
            places = scene.all("SELECT location FROM history WHERE workflow_id = %s ORDER BY location", origin.id)
            handles: dict[str, pgflow.WorkflowHandle[Any]] = {}
            for place in places:
                try:
                    handles[place] = await client.fork(origin.id, before=place)
                except pgflow.PgflowError as error:
                    assert "trimmed" in str(error)
                    refused += 1
                    continue
                forks += 1
            for place, handle in handles.items():
                assert await handle.output(timeout=60) == wanted, f"seed {seed}: the fork before {place}"
    scene.close()
    assert forks > refused and (refused == 0 or workflow is loops)


async def test_the_copy_is_before_in_both_orders(dsn: str) -> None:
    """Without a worker for the forks: only what the function has copied is there."""
    scene = Scene(dsn)
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            origins = [await client.dispatch(workflow, 7) for workflow in WORKFLOWS]
            for origin in origins:
                await origin.output(timeout=60)
        for origin in origins:
            for place, seq in scene.all("SELECT location, seq FROM history WHERE workflow_id = %s", origin.id):
                try:
                    fork = await client.fork(origin.id, before=place)
                except pgflow.PgflowError:
                    continue
                behind = (
                    'SELECT count(*) FROM events WHERE workflow_id = %s AND (location >= %s COLLATE "C" OR seq >= %s)'
                )
                assert scene.one(behind, fork.id, place, 1_000_000 if seq is None else seq) == 0
                # Whatever has a result has all results that came before it, but for those of turns that are over.
                missing = (
                    "SELECT count(*) FROM events AS o WHERE o.workflow_id = %s AND o.seq < (SELECT max(seq) FROM "
                    "events WHERE workflow_id = %s) AND NOT EXISTS (SELECT FROM events AS f WHERE f.workflow_id = %s "
                    "AND f.location = o.location AND f.seq = o.seq)"
                )
                assert scene.one(missing, origin.id, fork.id, fork.id) == 0
    scene.close()


async def test_what_is_certain_to_have_been_called_stays(dsn: str) -> None:
    """A version check before the place keeps what it has answered, whatever the code asks for now."""
    newest = 1

    @pgflow.workflow
    async def versioned(ctx: pgflow.WorkflowContext) -> list[Any]:
        beside = asyncio.ensure_future(ctx.activity(weigh, "slow", 60))
        first = await ctx.activity(weigh, "first", 0)
        version = await ctx.check_version(newest)
        return [first, version, await ctx.activity(weigh, "second", 0), await beside]

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[versioned]):
        origin = await client.dispatch(versioned)
        output = await origin.output(timeout=20)
        newest = 2
        fork = await client.fork(origin.id, before="{4}")
        assert await fork.output(timeout=20) == output
        fork = await client.fork(origin.id, before="{3}")
        assert (await fork.output(timeout=20))[1] == 2
