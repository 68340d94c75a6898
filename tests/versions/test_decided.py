"""Insertions before something that decided an old run's path: they run, and then everything happens as it did. About 15
seconds.

A recorded cancellation, a deadline that has passed and a decided race wait until the inserted step has ended, in the
life that executes it and in those that replay it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import pgflow
from pgflow.history.stored import StoredHistory
from pgflow.model.claimed import Claimed
from pgflow.testing import replay
from tests.execution.programs import echo
from tests.execution.simulator import Incarnation, World
from tests.testing.stored import stored
from tests.versions.lives import told, wake

Ctx = pgflow.WorkflowContext
Insert = Callable[[Ctx, str], Any]
Body = Callable[[Ctx, Insert, list[str]], Any]


async def activity(ctx: Ctx, name: str) -> None:
    await ctx.v(2).activity(echo.options(name=name), name)


async def two(ctx: Ctx, name: str) -> None:
    await activity(ctx, name)
    await activity(ctx, f"{name}b")


async def long_sleep(ctx: Ctx, name: str) -> None:
    await ctx.v(2).sleep(7200)


async def branch(ctx: Ctx, name: str) -> None:
    async def inside(inner: Ctx) -> None:
        await inner.activity(echo.options(name=name), name)
        await inner.sleep(30)

    await ctx.v(2).branch(inside)


async def joined(ctx: Ctx, name: str) -> None:
    async def one(inner: Ctx) -> None:
        await inner.activity(echo.options(name=name), name)

    await ctx.v(2).join(ctx.v(2).activity(echo.options(name=f"{name}b"), name), one)


async def loop(ctx: Ctx, name: str) -> None:
    async def turn(inner: Ctx, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await inner.activity(echo.options(name=f"{name}{n}"), name)
        return pgflow.Continue(n + 1) if n < 2 else pgflow.Break(n)

    await ctx.v(2).loop(turn, 0)


async def timed(ctx: Ctx, name: str) -> None:
    try:
        async with ctx.v(2).timeout(20):
            await ctx.v(2).sleep(7200)
    except TimeoutError:
        await ctx.v(2).activity(echo.options(name=name), name)


INSERTIONS = [activity, two, long_sleep, branch, joined, loop, timed]


async def nothing(ctx: Ctx, name: str) -> None: ...


async def step(ctx: Ctx, seen: list[str], name: str) -> None:
    seen.append(str(await ctx.activity(echo.options(name=name), name)))


async def cancelled(ctx: Ctx, insert: Insert, seen: list[str]) -> None:
    try:
        await insert(ctx, "i0")
        await step(ctx, seen, "reserve")
        await insert(ctx, "i1")
        await ctx.sleep(3600)
    except asyncio.CancelledError:
        seen.append("cancelled")
        await step(ctx, seen, "release")
        await insert(ctx, "i2")
        await ctx.sleep(5)
        await step(ctx, seen, "tell")


async def deadline(ctx: Ctx, insert: Insert, seen: list[str]) -> None:
    try:
        async with ctx.timeout(60):
            await step(ctx, seen, "reserve")
            await insert(ctx, "i0")
            await ctx.sleep(3600)
    except TimeoutError:
        seen.append("too late")
        await step(ctx, seen, "release")
    await insert(ctx, "i1")
    await ctx.sleep(5)
    await step(ctx, seen, "tell")


async def race(ctx: Ctx, insert: Insert, seen: list[str]) -> None:
    async def first(inner: Ctx) -> str:
        await insert(inner, "i0")
        await inner.activity(echo.options(name="quick"), "quick")
        await insert(inner, "i1")
        await inner.sleep(2)
        return "first"

    async def second(inner: Ctx) -> str:
        await inner.sleep(3)
        await inner.activity(echo.options(name="slow"), "slow")
        return "second"

    tasks = [asyncio.ensure_future(ctx.branch(body)) for body in (first, second)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    seen.append(str(sorted(task.result() for task in done)))
    await asyncio.wait(tasks)
    await step(ctx, seen, "after")
    await ctx.sleep(5)
    await insert(ctx, "i2")
    await step(ctx, seen, "tell")


async def order(ctx: Ctx, insert: Insert, seen: list[str]) -> None:
    async def body(inner: Ctx, number: int) -> None:
        for n in range(2):
            await insert(inner, f"i{number}{n}")
            await inner.sleep(1.1 + number + 2 * n)
            seen.append(f"{number} {n}")

    await ctx.join(*[lambda inner, number=number: body(inner, number) for number in range(3)])
    await step(ctx, seen, "after")
    await ctx.sleep(5)
    await step(ctx, seen, "tell")


PROGRAMS: dict[str, Body] = {"cancelled": cancelled, "deadline": deadline, "race": race, "order": order}


def program(body: Body, insertion: Insert, at: Callable[[str], bool]) -> tuple[pgflow.Workflow[Any, Any], list[str]]:
    seen: list[str] = []

    async def insert(ctx: Ctx, name: str) -> None:
        if at(name.rstrip("b")):
            await insertion(ctx, name)

    @pgflow.workflow(name="decided")
    async def decided(ctx: Ctx) -> None:
        await body(ctx, insert, seen)

    return decided, seen


def history_of(world: World) -> StoredHistory:
    return replace(stored(world), cancellations=world.cancellations)


def is_over(world: World) -> bool:
    return world.status in ("completed", "failed", "cancelled")


class Cancelled(Incarnation):
    """A claim that brings a request to cancel."""

    def __init__(self, world: World) -> None:
        claim = world.claim

        def asked() -> Claimed:
            claimed = claim()
            claimed.cancel_requested = True
            return claimed

        world.claim = asked  # type: ignore[method-assign]
        super().__init__(world)
        world.claim = claim  # type: ignore[method-assign]


def old_run(body: Body, name: str) -> tuple[World, list[str]]:
    """A run of the old code that has been decided, and waits for its last sleep; and what it has seen."""
    workflow, seen = program(body, nothing, lambda name: False)
    world = World(workflow)
    asked = name != "cancelled"
    while "after" not in seen and "release" not in seen:
        assert not is_over(world)
        cancel = not asked and seen == ["reserve"]
        seen.clear()
        if asked:
            wake(world)
        life = Cancelled(world) if cancel else Incarnation(world)
        asked = asked or cancel
        while not life.ended:
            life.take(life.choices()[0])
    assert world.status == "sleeping", (world.status, world.error)
    return world, list(seen)


def go_on(
    world: World, make: Callable[[], tuple[pgflow.Workflow[Any, Any], list[str]]], rng: random.Random, before: list[str]
) -> None:
    """To the end, through crashes; each life sees what was seen before."""
    longest = before
    for _ in range(1000):
        world.workflow, seen = make()
        wake(world)
        life = Incarnation(world)
        while not life.ended:
            life.take(rng.choice(life.choices()))
            shorter = min(len(seen), len(longest))
            assert seen[:shorter] == longest[:shorter], (seen, longest, told(world))
            if rng.random() < 0.15:
                break
        if not life.ended:
            life.crash()
        if len(seen) > len(longest):
            longest = list(seen)
        if is_over(world):
            break
    assert is_over(world)


@pytest.mark.parametrize("insertion", INSERTIONS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("name", PROGRAMS)
def test_an_old_run_executes_insertions_and_then_goes_as_it_went(name: str, insertion: Insert) -> None:
    body = PROGRAMS[name]
    for seed in range(6):
        rng = random.Random(seed)
        world, before = old_run(body, name)
        recorded = set(world.events)
        chosen: dict[str, bool] = {}

        def at(place: str, rng: random.Random = rng, chosen: dict[str, bool] = chosen) -> bool:
            return chosen.setdefault(place, rng.random() < 0.6)

        def make() -> tuple[pgflow.Workflow[Any, Any], list[str]]:
            return program(body, insertion, at)

        for place in ("i0", "i1", "i2", "i00", "i01", "i10", "i11", "i20", "i21"):
            at(place)
        assert replay(make()[0], history_of(world)).status in ("open", "completed")
        go_on(world, make, rng, before)
        assert world.status == "completed", f"seed {seed}: {world.error} {told(world)}"
        assert recorded <= set(world.events) | set(world.forgotten)
        if chosen["i00" if name == "order" else "i0"]:
            assert any(event.version == 2 for event in world.events.values())
        assert replay(make()[0], history_of(world)).status == world.status


async def plain(ctx: Ctx, name: str) -> None:
    """Without a version: new steps at the end of a branch need none."""
    await ctx.activity(echo.options(name=name), name)


async def beside(ctx: Ctx, insert: Insert, seen: list[str]) -> None:
    async def short(inner: Ctx) -> None:
        await inner.activity(echo.options(name="quick"), "quick")
        await insert(inner, "i0")

    async def long(inner: Ctx) -> None:
        await inner.sleep(3)
        seen.append("slept")
        await inner.sleep(3)
        seen.append("slept again")

    other = asyncio.ensure_future(ctx.branch(long))
    await ctx.branch(short)
    for number in range(3):
        await step(ctx, seen, f"step {number}")
    await other
    await step(ctx, seen, "after")
    await ctx.sleep(5)
    await step(ctx, seen, "tell")


def test_steps_added_at_the_end_of_a_branch_that_old_runs_have_passed() -> None:
    for seed in range(30):
        world, before = old_run(beside, "beside")

        def make() -> tuple[pgflow.Workflow[Any, Any], list[str]]:
            return program(beside, plain, lambda name: True)

        go_on(world, make, random.Random(seed), before)
        assert world.status == "completed", f"seed {seed}: {world.error} {told(world)}"
        assert "{2, 2} i0" in told(world)
        assert replay(make()[0], history_of(world)).status == "completed"
