"""A long replay takes a shortcut through recorded steps, which neither the code nor other runs can observe."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import pgflow
from pgflow.execution.engine import run as run_module
from pgflow.execution.engine.result_order import Order
from pgflow.execution.engine.run import Run
from pgflow.model.outcomes import Failed, Released
from tests.execution.lives import Lives, Seen
from tests.execution.programs import echo
from tests.execution.simulator import Incarnation, World, finish

Ctx = pgflow.WorkflowContext
LENGTH = 1_000


@pgflow.workflow
async def long(ctx: Ctx) -> int:
    for number in range(LENGTH):
        assert await ctx.activity(echo, str(number)) == str(number)
    await ctx.sleep(3600)
    return LENGTH


def asleep() -> World:
    """A workflow that sleeps behind a long history."""
    world = World(long)
    life = Incarnation(world)
    while not life.ended:
        life.take(life.choices()[0])
    assert world.status == "sleeping"
    return world


def test_recorded_steps_in_a_row_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each 64, one takes the long way."""
    world = asleep()
    deliver, delivered = Order.deliver_next, 0

    def counted(self: Order) -> bool:
        nonlocal delivered
        found = deliver(self)
        delivered += found
        return found

    monkeypatch.setattr(Order, "deliver_next", counted)
    Incarnation(world)
    assert LENGTH // 64 <= delivered <= LENGTH // 64 + 2


def test_a_long_replay_leaves_the_pump_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it goes: after so many steps, if its slice of time is over, other runs have a turn."""
    world = asleep()
    monkeypatch.setattr(run_module, "_SLICE", -1.0)
    pump, pumps = Run.pump, 0

    def counted(self: Run) -> None:
        nonlocal pumps
        pumps += 1
        pump(self)

    monkeypatch.setattr(Run, "pump", counted)
    Incarnation(world)
    assert pumps >= LENGTH // 64


def cancels_itself(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """A cancellation that the task has not seen finds it where it waits next, recorded or not."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> str:
        await ctx.activity(echo, "a")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await ctx.sleep(0)  # has ended before the cancellation is seen, and is recorded so
            seen.append("slept")
        except asyncio.CancelledError:
            seen.append("cancelled")
            task.uncancel()
        return await ctx.activity(echo, "c")

    return program


def beside_another(seen: Seen) -> pgflow.Workflow[Any, Any]:
    """What is ready goes on before the code that would have waited."""

    @pgflow.workflow
    async def program(ctx: Ctx) -> list[str]:
        async def other() -> None:
            seen.append("the other begins")
            await asyncio.sleep(0)
            seen.append("the other goes on")

        task = asyncio.ensure_future(other())
        for name in "abc":
            seen.append(await ctx.activity(echo, name))
        await task
        return [await ctx.activity(echo, "end")]

    return program


@pytest.mark.parametrize("program", [cancels_itself, beside_another])
def test_the_code_sees_the_same(program: Any) -> None:
    lives = Lives(program)
    while not lives.ended:
        life = lives.begin()
        lives.take(life, life.choices()[0])
        if not life.ended:
            lives.take(life, life.choices()[0])
        if not life.ended:
            life.crash()
    lives.check_end()


def test_a_result_that_no_longer_fits_fails_the_workflow_at_its_step() -> None:
    """The short way refuses what the long way would."""
    world = asleep()
    world.events["a10"] = world.events["a10"]._replace(output="17")
    finish(world)
    assert world.status == "failed" and world.error is not None
    assert "SerializationError" in world.error and "echo" in world.error


@pgflow.workflow(name="long")
async def begins_more_and_diverges(ctx: Ctx) -> None:
    async def more(branch: Ctx) -> None:
        await branch.activity(echo, "more")

    beside = [asyncio.ensure_future(ctx.v(2).branch(more)) for _ in range(2)]
    for number in range(LENGTH - 1):
        await ctx.activity(echo, str(number))
    await ctx.sleep(1)
    await asyncio.wait(beside)


def test_divergence_late_in_a_long_replay_has_begun_and_written_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the replay has left the pump many times since the code asked for more than history holds."""
    world = asleep()
    world.workflow = begins_more_and_diverges
    monkeypatch.setattr(run_module, "_SLICE", -1.0)
    life = Incarnation(world)
    assert life.calls == []
    (write,) = life.writes
    assert write.rows == [] and isinstance(write.outcome, Failed) and "HistoryDiverged" in write.outcome.error


def test_a_worker_that_stops_in_a_long_replay_hands_back_what_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    world = asleep()
    world.workflow = begins_more_and_diverges
    monkeypatch.setattr(run_module, "_SLICE", -1.0)
    pump = Run.pump

    def stopped_then(self: Run) -> None:
        pump(self)
        if not self.leaving:
            self.stop()

    monkeypatch.setattr(Run, "pump", stopped_then)
    life = Incarnation(world)
    assert [call for call in life.calls if not call.cancelled] == []
    (write,) = life.writes
    assert write.rows == [] and write.outcome == Released()
