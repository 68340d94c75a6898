"""When a message leaves: after the commit of its row, once, whatever crashes. No database; under a second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgflow
from tests.execution.simulator import Incarnation, World, finish


@pgflow.message
@dataclass
class Note:
    number: int


@pgflow.activity
def work(ctx: pgflow.ActivityContext, number: int) -> int:
    return number


@pgflow.workflow
async def noted(ctx: pgflow.WorkflowContext) -> int:
    """Messages one by one, together, in a branch, in a loop, and one that nobody awaits."""
    await ctx.publish(Note(1))
    await asyncio.gather(ctx.publish(Note(2)), ctx.activity(work, 1), ctx.publish(Note(3)))
    await ctx.sleep(0.5)

    async def aside(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(work, 2)
        await ctx.publish(Note(4))

    await ctx.branch(aside)

    async def turn(ctx: pgflow.WorkflowContext, number: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await ctx.publish(Note(number))
        return pgflow.Continue(number + 1) if number < 8 else pgflow.Break(number)

    await ctx.loop(turn, 5, commit_interval=2)
    task = asyncio.ensure_future(ctx.publish(Note(9)))
    await ctx.activity(work, 3)
    return int(task.done())


def sent(world: World) -> list[str]:
    return [message.body for message in world.published]


def test_it_leaves_after_the_commit() -> None:
    world = World(noted)
    life = Incarnation(world)
    assert life.choices() == ["commit"] and sent(world) == []
    life.take("commit")
    assert sent(world) == ['{"number":1}']
    (message,) = world.published
    assert (message.workflow_id, message.name, message.tags) == (world.id, "note", "{}")


def test_a_crash_before_the_commit_sends_nothing() -> None:
    world = World(noted)
    Incarnation(world).crash()
    assert sent(world) == []
    Incarnation(world).take("commit")
    assert sent(world) == ['{"number":1}']


def test_a_refused_row_sends_nothing() -> None:
    world = World(noted)
    life = Incarnation(world)
    Incarnation(world)  # another worker has taken it over
    life.take("commit")
    assert life.ended and sent(world) == []


@pytest.mark.parametrize("seed", range(5))
def test_each_is_sent_once(seed: int) -> None:
    world = finish(World(noted), seed=seed)
    assert (world.status, world.output) == ("completed", "1")
    assert sorted(sent(world)) == [f'{{"number":{number}}}' for number in range(1, 10)]


@given(st.integers(0, 2**32), st.floats(0.05, 0.5))
@settings(max_examples=100, deadline=None)
def test_crashes_send_nothing_again(seed: int, crash: float) -> None:
    """Here everything that is committed is sent at once, so nothing is lost either."""
    world = finish(World(noted), crash=crash, seed=seed)
    assert world.status == "completed"
    assert sorted(sent(world)) == [f'{{"number":{number}}}' for number in range(1, 10)]


def test_a_divergence_sends_nothing() -> None:
    """What was gathered in the pump that diverged is dropped with its rows."""

    @pgflow.workflow(name="edited")
    async def before(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(work, 1)
        await ctx.sleep(100)

    @pgflow.workflow(name="edited")
    async def after(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(work, 1)
        inserted = asyncio.ensure_future(ctx.v(2).publish(Note(1)))
        await asyncio.sleep(0)
        await ctx.activity(work, 2)
        await inserted

    world = World(before)
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])
    assert world.status == "sleeping"
    world.workflow = after
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])
    assert world.status == "failed" and world.error is not None and "HistoryDiverged" in world.error
    assert [row[1] for row in world.locations()] == ["activity", "sleep"] and sent(world) == []
