"""Steps one by one: which rows they leave and what they return, live and on replay."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pgflow
from tests.execution.simulator import Incarnation, World, finish


@pgflow.activity
async def double(ctx: pgflow.ActivityContext, n: int) -> int:
    return 2 * n


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=5.0, jitter=False))
def stumble(ctx: pgflow.ActivityContext, until: int) -> int:
    if ctx.attempt < until:
        raise ValueError(f"attempt {ctx.attempt}")
    return ctx.attempt


def test_sequence() -> None:
    @pgflow.workflow
    async def sums(ctx: pgflow.WorkflowContext, n: int) -> int:
        a = await ctx.activity(double, n)
        b = await ctx.activity(double, a)
        return a + b

    world = finish(World(sums, 3))
    assert (world.status, world.output) == ("completed", "18")
    assert world.locations() == [("1", "activity", "completed"), ("2", "activity", "completed")]
    assert world.executed == [("double", 'activity "double" at {1}'), ("double", 'activity "double" at {2}')]


def test_retry_is_recorded_attempt_by_attempt() -> None:
    @pgflow.workflow
    async def patient(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.activity(stumble, 3)

    world = World(patient)
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])
    assert world.status == "sleeping"
    row = world.events["1"]
    assert (row.status, row.attempts) == ("pending", 1)
    assert json.loads(row.error or "")["message"] == "attempt 1"
    assert world.wake_at == row.wake_at
    finish(world)
    assert (world.status, world.output, world.events["1"].attempts) == ("completed", "3", 3)


def test_last_failure_can_be_caught() -> None:
    @pgflow.workflow
    async def careful(ctx: pgflow.WorkflowContext) -> list[Any]:
        try:
            await ctx.activity(stumble, 9)
        except pgflow.ActivityFailed as error:
            return [error.error_type, error.attempts, await ctx.activity(double, 4)]
        return []

    world = finish(World(careful))
    assert json.loads(world.output or "") == ["ValueError", 3, 8]


def test_gather_keeps_history_free_of_holes() -> None:
    @pgflow.workflow
    async def both(ctx: pgflow.WorkflowContext) -> list[int]:
        return list(await asyncio.gather(ctx.activity(double, 1), ctx.activity(double, 2)))

    world = World(both)
    life = Incarnation(world)
    life.take("activity 1")
    life.take("commit")
    assert world.locations() == [("1", "activity", "pending"), ("2", "activity", "completed")]
    life.crash()
    finish(world)
    assert world.output == "[2,4]"
    assert len(world.executed) == 2


def test_sleep_gives_the_lease_up() -> None:
    @pgflow.workflow
    async def nap(ctx: pgflow.WorkflowContext) -> float:
        before = ctx.now()
        await ctx.sleep(timedelta(hours=1))
        return (ctx.now() - before).total_seconds()

    world = World(nap)
    life = Incarnation(world)
    life.take("commit")
    assert life.ended and world.status == "sleeping"
    assert world.locations() == [("1", "sleep", "pending")]
    finish(world)
    assert float(world.output or "") >= 3600


def test_loop_forgets_and_breaks() -> None:
    @pgflow.workflow
    async def count(ctx: pgflow.WorkflowContext, n: int) -> int:
        async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            await ctx.activity(double, state)
            return pgflow.Break(state) if state + 1 == n else pgflow.Continue(state + 1)

        return await ctx.loop(turn, state=0, commit_interval=7, keep_iterations=10)

    world = finish(World(count, 50))
    assert world.output == "49"
    assert world.locations() == [("1", "loop", "completed")]
    assert len(world.forgotten) == 10
    assert len(world.executed) == 50


def test_timeout_waits_for_a_result_on_its_way() -> None:
    """The deadline passes while the covered step's result is being committed: the block was left in time."""

    @pgflow.workflow
    async def hurry(ctx: pgflow.WorkflowContext) -> int:
        async with ctx.timeout(0.5):
            return await ctx.activity(double, 4)

    life = Incarnation(World(hurry))
    life.take("activity 0")
    life.take("timer")
    life.take("commit")
    life.take("commit")
    assert (life.world.status, life.world.output) == ("completed", "8")


def test_now_random_and_uuid_are_the_same_on_replay() -> None:
    told: list[list[str]] = []

    @pgflow.workflow
    async def facts(ctx: pgflow.WorkflowContext) -> None:
        async def inside(branch: pgflow.WorkflowContext) -> None:
            life.extend([str(branch.random()), str(branch.uuid4())])

        life: list[str] = []
        told.append(life)
        for n in range(3):
            await ctx.activity(double, n)
            life.extend([str(ctx.now()), str(ctx.random()), str(ctx.uuid4())])
            await ctx.branch(inside)

    world = World(facts)
    for _ in range(8):
        life = Incarnation(world)
        life.take(life.choices()[0])
        if not life.ended:
            life.take(life.choices()[0])
        if not life.ended:
            life.crash()
    finish(world)
    for life_told in told:
        assert life_told == told[-1][: len(life_told)]
    assert len(set(told[-1])) == len(told[-1]) == 15


def test_a_branch_may_be_a_plain_function_of_its_context() -> None:
    @pgflow.workflow
    async def program(ctx: pgflow.WorkflowContext) -> list[int]:
        one = await ctx.branch(lambda branch: branch.activity(double, 1))
        return [one, *await ctx.join(lambda branch: branch.activity(double, 2), ctx.activity(double, 3))]

    world = finish(World(program))
    assert world.output == "[2,4,6]"
    assert [key for key, _, _ in world.locations()] == ["1", "1,1", "2", "3", "3,1"]
