"""`pgflow.testing.replay`: what fits does so at every moment of a workflow's life; what does not is reported with its
place.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest

import pgflow
from pgflow.history.stored import StoredHistory
from pgflow.testing import replay
from tests.execution.lives import Seen
from tests.execution.programs import PROGRAMS, echo, fails
from tests.execution.simulator import Incarnation, World, finish
from tests.testing.stored import stored


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_state_that_the_database_is_ever_in_replays(name: str) -> None:
    """Also in the middle of things, after crashes, and the code sees what it saw."""
    for seed in range(12):
        rng = random.Random(seed)
        seen = Seen()
        world = World(PROGRAMS[name](seen))
        longest = Seen()
        while world.status not in ("completed", "failed"):
            seen = Seen()
            world.workflow = PROGRAMS[name](seen)
            if world.status == "sleeping":
                assert world.wake_at is not None
                world.now = max(world.now, world.wake_at)
            life = Incarnation(world)
            while not life.ended:
                life.take(rng.choice(life.choices()))
                longest = max(longest, seen, key=lambda one: len(one.entries))
                again = Seen()
                executed = len(world.executed)
                found = replay(PROGRAMS[name](again), stored(world))
                assert again.entries == longest.entries[: len(again.entries)] and found.unreached == 0
                assert len(world.executed) == executed
                if not life.ended and rng.random() < 0.1:
                    life.crash()
        again = Seen()
        found = replay(PROGRAMS[name](again), stored(world).to_json())
        assert again.entries == longest.entries
        assert (found.status, found.same_output) == ("completed", True)


@pgflow.workflow(name="steps")
async def steps(ctx: pgflow.WorkflowContext) -> list[str]:
    first = await ctx.activity(echo, "a")
    await ctx.sleep(3600)
    return [first, await ctx.activity(echo, "b")]


def asleep() -> StoredHistory:
    """The history of `steps` as it sleeps."""
    world = World(steps)
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])
    return stored(world)


def edited(body: Any) -> pgflow.Workflow[Any, Any]:
    body.__name__ = "steps"
    return pgflow.workflow(body)


def test_where_history_ends() -> None:
    found = replay(steps, asleep())
    assert (found.status, found.next_steps, found.unreached) == ("open", ("sleep at {2}",), 0)
    assert found.events == 2 and found.output is None and found.same_output is None
    assert replay(steps, stored(World(steps))).next_steps == ('activity "echo" at {1}',)


def test_divergence_with_location_expected_and_found() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(echo, "a")
        await ctx.activity(fails, "b")

    with pytest.raises(pgflow.HistoryDiverged, match="ctx.v") as error:
        replay(program, asleep())
    assert (error.value.location, error.value.found) == ("{2}", "sleep of version 1")
    assert error.value.expected == 'activity "fails" of version 1'


def test_divergence_cannot_be_swallowed() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> str:
        try:
            await ctx.activity(fails, "b")
        except Exception:
            pass
        return "fine"

    with pytest.raises(pgflow.HistoryDiverged):
        replay(program, asleep())


def test_latent_history() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> str:
        return await ctx.activity(echo, "a")

    for history in (asleep(), stored(finish(World(steps)))):
        with pytest.raises(pgflow.LatentHistory) as error:
            replay(program, history)
        assert (error.value.location, error.value.found) == ("{2}", "sleep")
        assert error.value.expected == "the end of the workflow"


def test_nondeterminism() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(echo, "a")
        await asyncio.sleep(3600)

    with pytest.raises(pgflow.NondeterminismError, match="ctx.sleep") as error:
        replay(program, asleep())
    assert error.value.found == "loop.call_later"


def test_code_that_fails_where_the_workflow_has_not() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> None:
        raise KeyError(await ctx.activity(echo, "a"))

    with pytest.raises(KeyError, match="a"):
        replay(program, asleep())

    @edited
    async def stuck(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(echo, "a")
        sleep = asyncio.ensure_future(ctx.sleep(3600))
        sleep.cancel()
        await asyncio.wait([sleep])
        await asyncio.Event().wait()

    with pytest.raises(pgflow.PgflowError, match="waits for something"):
        replay(stuck, asleep())

    @pgflow.workflow(name="steps")
    async def other_input(ctx: pgflow.WorkflowContext, needed: int) -> None: ...

    with pytest.raises(pgflow.SerializationError, match="needed"):
        replay(other_input, asleep())


def test_failed_workflows() -> None:
    @pgflow.workflow(name="steps")
    async def failing(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(fails, "now")

    history = stored(finish(World(failing)))
    assert history.status == "failed"
    found = replay(failing, history)
    assert found.status == "failed" and isinstance(found.error, pgflow.ActivityFailed)

    @pgflow.workflow(name="steps")
    async def mended(ctx: pgflow.WorkflowContext) -> str:
        try:
            await ctx.activity(fails, "now")
        except pgflow.ActivityFailed:
            return await ctx.activity(echo, "instead")
        return "never"

    assert replay(mended, history).next_steps == ('activity "echo" at {2}',)
    with pytest.raises(pgflow.HistoryDiverged):
        replay(steps, history)


def test_another_output_is_told() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> list[str]:
        first = await ctx.activity(echo, "a")
        await ctx.sleep(3600)
        return [await ctx.activity(echo, "b"), "None", first]

    found = replay(program, stored(finish(World(steps))))
    assert (found.status, found.same_output, found.output) == ("completed", False, ["b", "None", "a"])


def test_what_stands_behind_an_insertion_is_not_reached() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> None:
        await ctx.v(2).activity(echo, "new")
        await ctx.activity(echo, "a")
        await ctx.activity(fails, "this diverges later")

    found = replay(program, asleep())
    assert (found.status, found.next_steps, found.unreached) == ("open", ('activity "echo" at {0.1}',), 2)


def test_rows_below_a_step_that_is_not_reached_are_not_reached() -> None:
    @pgflow.workflow(name="steps")
    async def branched(ctx: pgflow.WorkflowContext) -> None:
        async def walk(branch: pgflow.WorkflowContext) -> None:
            await branch.activity(echo, "b")
            await branch.sleep(3600)

        await ctx.branch(walk)

    world = World(branched)
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])

    @pgflow.workflow(name="steps")
    async def later(ctx: pgflow.WorkflowContext) -> None:
        await ctx.v(2).sleep(1)
        await branched(ctx)  # type: ignore[operator]  # refused

    assert replay(later, stored(world)).unreached == 3
    assert replay(branched, stored(world)).next_steps == ("sleep at {1, 2}",)

    @pgflow.workflow(name="steps")
    async def within(ctx: pgflow.WorkflowContext) -> None:
        async def walk(branch: pgflow.WorkflowContext) -> None:
            await branch.v(2).sleep(1)
            await branch.activity(echo, "b")
            await branch.sleep(3600)

        await ctx.branch(walk)

    assert replay(within, stored(world)).unreached == 2


def test_turns_without_a_step_come_to_an_end() -> None:
    @edited
    async def program(ctx: pgflow.WorkflowContext) -> None:
        async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int]:
            return pgflow.Continue(n + 1)

        await ctx.activity(echo, "a")
        await ctx.sleep(3600)
        await ctx.loop(turn, 0, commit_interval=1_000_000)

    history = asleep()
    first, sleep = history.events
    slept = sleep._replace(status="completed", seq=2, at=history.now)
    assert replay(program, dataclasses.replace(history, events=[first, slept])).status == "open"


async def test_from_within_a_task() -> None:
    assert replay(steps, asleep()).status == "open"


def test_documents(tmp_path: Path) -> None:
    history = asleep()
    text = history.to_json()
    file = tmp_path / "history.json"
    file.write_text(text)
    for given in (text, json.loads(text), file):
        assert replay(steps, given).status == "open"
    with pytest.raises(ValueError, match='history of workflow "steps", expected one of "other"'):
        replay(steps.options(name="other"), text)
