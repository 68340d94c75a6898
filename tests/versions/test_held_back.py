"""Insertions that wait for what comes after recorded steps: what can go on does, and what would wait for ever is
logged.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from pgflow.testing import replay
from tests.execution.programs import echo
from tests.execution.simulator import Incarnation, World
from tests.versions.lives import ended, told, wake
from tests.versions.test_decided import go_on, history_of, step

Ctx = pgflow.WorkflowContext


@pgflow.signal
@dataclass
class Stop:
    by: str = ""


def of_a_branch(inserted: bool) -> tuple[pgflow.Workflow[Any, Any], list[str]]:
    """The insertion waits for another branch, which has recorded steps; beside them somebody listens all the time."""
    seen: list[str] = []

    @pgflow.workflow(name="held")
    async def held(ctx: Ctx) -> None:
        ready = asyncio.Event()

        async def listens(inner: Ctx) -> None:
            await inner.listen(Stop)

        async def readies(inner: Ctx) -> None:
            await inner.sleep(3)
            ready.set()
            await inner.sleep(3)

        listening, readying = [asyncio.ensure_future(ctx.branch(body)) for body in (listens, readies)]
        if inserted:
            await ready.wait()
            await ctx.v(2).activity(echo.options(name="check"), "check")
        await step(ctx, seen, "reserve")
        await readying
        await step(ctx, seen, "after")
        await ctx.sleep(60)
        await step(ctx, seen, "tell")
        listening.cancel()

    return held, seen


def listens_for_itself(inserted: bool) -> tuple[pgflow.Workflow[Any, Any], list[str]]:
    """The insertion waits for a signal."""
    seen: list[str] = []

    @pgflow.workflow(name="held")
    async def held(ctx: Ctx) -> None:
        await step(ctx, seen, "before")
        if inserted:
            await ctx.v(2).listen(Stop)
        await step(ctx, seen, "reserve")
        await step(ctx, seen, "after")
        await ctx.sleep(60)
        await step(ctx, seen, "tell")

    return held, seen


def old_run(make: Any) -> tuple[World, list[str]]:
    """A run of the old code in its last sleep."""
    workflow, seen = make(False)
    world = World(workflow)
    while "after" not in seen:
        seen.clear()
        wake(world)
        life = Incarnation(world)
        while not life.ended:
            life.take(life.choices()[0])
    assert world.status == "sleeping", (world.status, world.error)
    return world, list(seen)


def test_what_was_pending_before_holds_nothing_back() -> None:
    """The old code called the step after it without its result, so that nothing stands behind it."""
    for seed in range(20):
        world, before = old_run(of_a_branch)
        go_on(world, lambda: of_a_branch(True), random.Random(seed), before)
        assert world.status == "completed", f"seed {seed}: {world.error} {told(world)}"
        assert "{2.1} check v2" in told(world)
        assert replay(of_a_branch(True)[0], history_of(world)).status == "completed"


def test_an_insertion_without_a_deadline_that_holds_back_what_is_recorded_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, _ = old_run(listens_for_itself)
    for asked in (False, True):
        world.workflow, _ = listens_for_itself(True)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "pgflow.execution"):
            life = Incarnation(world)
            life.run.claimed.cancel_requested = asked
            while not life.ended:
                life.take(life.choices()[0])
        assert world.status == "sleeping"
        (line,) = [record.message for record in caplog.records]
        assert 'listen "stop" at {1.1}' in line
        assert 'activity "reserve" at {2}' in line
        assert 'ctx.v(2).removed("listen", "stop")' in line
        world.status = "pending"

    @pgflow.workflow(name="held")
    async def mended(ctx: Ctx) -> None:
        await step(ctx, [], "before")
        await ctx.v(2).removed("listen", "stop")
        for name in ("reserve", "after"):
            await step(ctx, [], name)
        await ctx.sleep(60)
        await step(ctx, [], "tell")

    assert ended(world, mended).status == "completed", world.error


def test_a_sleep_that_holds_back_is_not_worth_a_word(caplog: pytest.LogCaptureFixture) -> None:
    def sleeps(inserted: bool) -> tuple[pgflow.Workflow[Any, Any], list[str]]:
        seen: list[str] = []

        @pgflow.workflow(name="held")
        async def held(ctx: Ctx) -> None:
            if inserted:
                await ctx.v(2).sleep(7200)
            await step(ctx, seen, "after")
            await ctx.sleep(60)

        return held, seen

    world, before = old_run(sleeps)
    go_on(world, lambda: sleeps(True), random.Random(1), before)
    assert world.status == "completed" and not caplog.records
