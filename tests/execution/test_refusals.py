"""What a run refuses: history that does not fit the code, steps that a replay could not repeat."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from pgflow.execution.engine.host import Limits
from tests.execution.simulator import Incarnation, World, finish

Body = Callable[[pgflow.WorkflowContext], Awaitable[Any]]


@pgflow.activity
def echo(ctx: pgflow.ActivityContext, name: str) -> str:
    return name


other = echo.options(name="other")


@pgflow.signal
@dataclass
class Heard:
    text: str


@pgflow.message
@dataclass
class Told:
    text: str


def world_of(body: Body) -> World:
    return World(program(body))


def program(body: Body) -> pgflow.Workflow[Any, Any]:
    @pgflow.workflow(name="edited")
    async def run(ctx: pgflow.WorkflowContext) -> Any:
        return await body(ctx)

    return run


def failure(world: World) -> tuple[str, str]:
    assert world.status == "failed"
    error = json.loads(world.error or "")
    return error["type"], error["message"]


async def two_steps(ctx: pgflow.WorkflowContext) -> str:
    await ctx.activity(echo, "a")
    await ctx.sleep(3600)
    return "old"


def after_first_sleep(body: Body = two_steps) -> World:
    world = world_of(body)
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])
    assert world.status == "sleeping"
    return world


def go_on_with(world: World, body: Body) -> World:
    world.workflow = program(body)
    return finish(world)


def test_divergence_fails_the_workflow_and_writes_no_event() -> None:
    async def edited(ctx: pgflow.WorkflowContext) -> None:
        step = asyncio.ensure_future(ctx.activity(echo, "a"))
        try:
            await ctx.activity(other, "b")
        except Exception:
            pass  # it cannot be swallowed
        await step

    world = after_first_sleep()
    before = dict(world.events)
    kind, message = failure(go_on_with(world, edited))
    assert kind == "HistoryDiverged"
    assert 'activity "other" of version 1' in message and "{2}" in message and "sleep" in message
    assert world.events == before
    assert ("other", 'activity "other" at {2}') not in world.executed


def test_retry_under_mended_code_goes_on() -> None:
    async def broken(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(other, "b")

    world = go_on_with(after_first_sleep(), broken)
    world.status = "pending"
    assert go_on_with(world, two_steps).output == '"old"'


def test_latent_history() -> None:
    async def shorter(ctx: pgflow.WorkflowContext) -> str:
        return await ctx.activity(echo, "a")

    kind, message = failure(go_on_with(after_first_sleep(), shorter))
    assert kind == "LatentHistory" and "{2}" in message


def test_an_exception_does_not_hide_latent_history() -> None:
    """What it leaves unfinished is not recorded as abandoned: the mended code goes on."""

    async def broken(ctx: pgflow.WorkflowContext) -> str:
        beside = ctx.v(2).sleep(60)
        raise KeyError(await ctx.activity(echo, "a"), beside.close())

    before = after_first_sleep()
    events = dict(before.events)
    world = go_on_with(before, broken)
    kind, message = failure(world)
    assert kind == "LatentHistory" and "{2}" in message and "KeyError" in message and world.error is not None
    assert "raise KeyError" in world.error, "the traceback tells both"
    assert world.events == events
    world.status = "pending"
    assert go_on_with(world, two_steps).output == '"old"'


def test_insertions_stand_between_old_steps() -> None:
    async def edited(ctx: pgflow.WorkflowContext) -> str:
        first = await ctx.v(2).activity(echo, "first")
        await ctx.activity(echo, "a")
        between = await ctx.v(2).activity(other, "between")
        await ctx.v(2).sleep(0.1)
        await ctx.sleep(3600)
        return f"{first} {between} {await ctx.activity(echo, 'last')}"

    world = go_on_with(after_first_sleep(), edited)
    assert world.output == '"first between last"'
    assert [key for key, _, _ in world.locations()] == ["0.1", "1", "1.1", "1.2", "2", "3"]


def test_check_version_and_removed() -> None:
    async def edited(ctx: pgflow.WorkflowContext) -> list[int]:
        versions = [await ctx.check_version(3)]
        await ctx.removed("activity", "echo")
        await ctx.sleep(3600)
        versions.append(await ctx.check_version(3))
        await ctx.removed("activity", "echo")
        return versions

    world = go_on_with(after_first_sleep(), edited)
    assert world.output == "[1,3]"
    assert [(key, kind) for key, kind, _ in world.locations()][2:] == [("3", "version_check"), ("4", "removed")]
    world.status = "pending"
    assert go_on_with(world, edited).output == "[1,3]"


@pytest.mark.parametrize("how", ["sleep", "thread", "socket", "timeout"])
def test_the_loop_offers_no_timers_threads_or_sockets(how: str) -> None:
    async def body(ctx: pgflow.WorkflowContext) -> None:
        try:
            if how == "sleep":
                await asyncio.sleep(0.01)
            elif how == "thread":
                await asyncio.to_thread(time.time)
            elif how == "socket":
                await asyncio.open_connection("localhost", 1)
            else:
                await asyncio.wait_for(ctx.activity(echo, "a"), 1)
        except Exception:
            pass
        await ctx.activity(echo, "never")

    kind, message = failure(finish(world_of(body)))
    assert kind == "NondeterminismError"
    assert "ctx.sleep" in message or "activity" in message


def test_one_context_in_two_tasks() -> None:
    async def body(ctx: pgflow.WorkflowContext) -> None:
        async def line() -> None:
            await ctx.activity(echo, "a")

        await asyncio.gather(line(), line())

    kind, message = failure(finish(world_of(body)))
    assert kind == "NondeterminismError" and "ctx.join" in message


def test_a_workflow_that_waits_for_nothing() -> None:
    async def body(ctx: pgflow.WorkflowContext) -> None:
        await asyncio.get_running_loop().create_future()

    kind, message = failure(finish(world_of(body)))
    assert kind == "PgflowError" and "waits for something" in message


def test_a_result_that_cannot_be_stored_fails_the_activity_at_once() -> None:
    @pgflow.activity
    def bad(ctx: pgflow.ActivityContext) -> float:
        return float("nan")

    async def body(ctx: pgflow.WorkflowContext) -> Any:
        try:
            await ctx.activity(bad)
        except pgflow.ActivityFailed as error:
            return [error.error_type, error.attempts]

    assert finish(world_of(body)).output == '["SerializationError",1]'


def test_arguments_that_do_not_fit_use_no_location() -> None:
    async def body(ctx: pgflow.WorkflowContext) -> str:
        with pytest.raises(TypeError, match="expected|missing|unexpected|too many"):
            await ctx.activity(echo, "a", "b")  # type: ignore[call-arg]
        with pytest.raises(pgflow.SerializationError, match="NUL"):
            await ctx.activity(echo, "\0")
        return await ctx.activity(echo, "fine")

    world = finish(world_of(body))
    assert world.output == '"fine"' and world.locations() == [("1", "activity", "completed")]


def test_arguments_of_an_insertion_that_do_not_fit_use_no_location() -> None:
    """Nor do they leave a step behind, which the next row of the branch would record as pending."""

    async def edited(ctx: pgflow.WorkflowContext) -> str:
        inserted = ctx.v(2)
        with pytest.raises(TypeError, match="too many"):
            await inserted.activity(echo, "a", "b")  # type: ignore[call-arg]
        with pytest.raises(pgflow.SerializationError, match="NUL"):
            await inserted.dispatch("child", text="\0")
        with pytest.raises(pgflow.SerializationError, match="NUL"):
            await inserted.publish(Told("\0"))
        first = await inserted.activity(echo, "first")
        await ctx.activity(echo, "a")
        await ctx.sleep(3600)
        return first

    world = go_on_with(after_first_sleep(), edited)
    assert world.output == '"first"'
    assert world.locations() == [
        ("0.1", "activity", "completed"),
        ("1", "activity", "completed"),
        ("2", "sleep", "completed"),
    ]


@pytest.mark.parametrize("nested", [False, True])
def test_one_timeout_is_entered_once(nested: bool) -> None:
    async def body(ctx: pgflow.WorkflowContext) -> str:
        timeout = ctx.timeout(60)
        async with timeout:
            if nested:
                async with timeout:
                    pass
        async with timeout:
            pass
        return "entered twice"

    kind, message = failure(finish(world_of(body)))
    assert kind == "PgflowError" and "timeout at {1} was entered before" in message and "ctx.timeout(...)" in message


def test_sys_exit_in_a_workflow_is_its_failure() -> None:
    async def body(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(echo, "a")
        raise SystemExit(3)

    assert failure(finish(world_of(body)))[0] == "SystemExit"


def test_active_rows_are_bounded_and_forgotten_ones_do_not_count() -> None:
    async def endless(ctx: pgflow.WorkflowContext) -> None:
        for _ in range(1000):
            await ctx.activity(echo, "a")

    async def listening(ctx: pgflow.WorkflowContext) -> None:
        for _ in range(20):
            await ctx.activity(echo, "a")
        await ctx.listen(Heard)

    async def looping(ctx: pgflow.WorkflowContext) -> int:
        async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            await asyncio.gather(ctx.activity(echo, "a"), ctx.activity(echo, "b"))
            return pgflow.Break(n) if n == 50 else pgflow.Continue(n + 1)

        return await ctx.loop(turn, 0, commit_interval=2)

    def one_life(body: Body) -> World:
        world = world_of(body)
        life = Incarnation(world, Limits(warn_rows=20, max_rows=20))
        while not life.ended:
            life.take(life.choices()[0])
        return world

    for body in endless, listening:  # one too many fails it also if it is the row of what it would sleep on
        kind, message = failure(one_life(body))
        assert kind == "EngineError" and "20 rows" in message and "ctx.loop" in message
    assert one_life(looping).output == "50"


@pytest.mark.parametrize("how", ["step", "random", "branch", "timeout"])
def test_a_turn_that_uses_the_context_around_its_loop(how: str) -> None:
    async def body(ctx: pgflow.WorkflowContext) -> int:
        async def turn(inner: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            await inner.activity(echo, "a")
            if how == "step":
                await ctx.activity(echo, "b")
            elif how == "random":
                ctx.random()
            elif how == "branch":
                await inner.branch(lambda branch: ctx.activity(echo, "b"))
            else:
                async with ctx.timeout(5):
                    await inner.activity(echo, "b")
            return pgflow.Break(n) if n == 2 else pgflow.Continue(n + 1)

        return await ctx.loop(turn, 0)

    kind, message = failure(finish(world_of(body)))
    assert kind == "NondeterminismError" and "turn" in message and "the workflow around the loop" in message


def test_random_numbers_are_the_workflows_alone() -> None:
    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    def draws(ctx: pgflow.ActivityContext) -> float:
        return found[0].random()

    found: list[pgflow.WorkflowContext] = []

    async def body(ctx: pgflow.WorkflowContext) -> None:
        found.append(ctx)
        await ctx.activity(draws)

    kind, message = failure(finish(world_of(body)))
    assert kind == "ActivityFailed" and "outside of the workflow" in message
