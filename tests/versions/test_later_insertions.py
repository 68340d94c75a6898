"""Steps that are inserted later, right behind a place where an old run wrote nothing, do not change what it decided
there.
"""

from __future__ import annotations

from typing import Any

import pytest

import pgflow
from tests.execution.programs import echo
from tests.execution.simulator import Incarnation, World
from tests.versions.lives import Program, begun, ended, go_to_sleep, told

new = echo.options(name="new")
extra = echo.options(name="extra")
Body = Any


def order(body: Body) -> Program:
    return pgflow.workflow(name="order")(body)


@order
async def before(ctx: pgflow.WorkflowContext) -> str:
    await ctx.activity(echo, "old")
    await ctx.sleep(60)
    return "old way"


@order
async def checked(ctx: pgflow.WorkflowContext) -> str:
    if await ctx.check_version(2) >= 2:
        await ctx.activity(new, "new")
        await ctx.sleep(60)
        return "new way"
    await ctx.activity(echo, "old")
    await ctx.sleep(60)
    return "old way"


def inserted(version: int) -> Program:
    @order
    async def later(ctx: pgflow.WorkflowContext) -> str:
        if await ctx.check_version(2) >= 2:
            await ctx.v(version).activity(extra, "more")
            await ctx.activity(new, "new")
            await ctx.sleep(60)
            return "new way"
        await ctx.v(version).activity(extra, "more")
        await ctx.activity(echo, "old")
        await ctx.sleep(60)
        return "old way"

    return later


@pytest.mark.parametrize("version", [2, 3])
def test_behind_a_check(version: int) -> None:
    later = inserted(version)
    world = begun(before)
    go_to_sleep(world, checked, 1)
    world.workflow = later
    for _ in range(3):  # the insertion is recorded, and replayed from then on
        life = Incarnation(world)
        while "{0.1}" not in "".join(told(world)):
            life.take(life.choices()[0])
        life.crash()
    assert ended(world, later).output == '"old way"'
    assert told(world) == [f"{{0.1}} extra v{version}", "{1} echo", "{2} sleep"]
    assert ended(World(later), later).output == '"new way"'
    half_way = begun(checked)
    assert ended(half_way, inserted(3)).output == '"new way"'
    assert told(half_way) == ["{1} version_check v2", "{1.1} extra v3", "{2} new", "{3} sleep"]


def test_behind_an_insertion_that_was_removed() -> None:
    @order
    async def later(ctx: pgflow.WorkflowContext) -> None:
        await ctx.v(2).removed("activity", "new")
        await ctx.v(3).activity(extra, "more")
        await ctx.activity(echo, "old")
        await ctx.sleep(60)
        await ctx.sleep(60)

    world = begun(before)
    go_to_sleep(world, later, 2)
    assert ended(world, later).status == "completed", world.error
    assert told(world) == ["{0.1} extra v3", "{1} echo", "{2} sleep", "{3} sleep"]


def test_a_removed_step_is_still_compared() -> None:
    """At the version of what stands there nothing is older, and another step is another step."""

    @order
    async def wrong(ctx: pgflow.WorkflowContext) -> None:
        await ctx.removed("activity", "new")
        await ctx.sleep(60)

    world = ended(begun(before), wrong)
    assert world.status == "failed" and "which the code says was removed" in (world.error or "")


def test_what_was_awaited_and_is_removed_is_awaited_no_more() -> None:
    @order
    async def hasty(ctx: pgflow.WorkflowContext) -> str:
        await ctx.activity(echo, "old")
        await ctx.removed("sleep")
        await ctx.sleep(60)
        return "hasty"

    world = begun(before)
    go_to_sleep(world, hasty, 2)
    assert [(event.location, event.status) for event in world.events.values()][1:] == [
        ("2", "cancelled"),
        ("3", "pending"),
    ]
    assert ended(world, hasty).output == '"hasty"'
