"""Code that does not come to rest is named and ended, and the exception that ends it hits nothing else."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest

import pgflow
from pgflow.errors import EngineError
from pgflow.execution.event_loop import spinning
from pgflow.execution.event_loop.event_loop import RunLoop
from pgflow.execution.event_loop.stage import stage
from pgflow.testing import run
from tests.execution.test_sets import number

Ctx = pgflow.WorkflowContext


def test_the_line_at_which_it_spins_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr(spinning, "MOST", 20_000)

    async def inner() -> None:
        while True:
            await asyncio.sleep(0)

    @pgflow.workflow
    async def spins(ctx: Ctx) -> None:
        await ctx.activity(number, 1)
        await inner()

    ran = run(spins)
    assert ran.status == "failed"
    assert isinstance(ran.error, EngineError)
    line = inner.__code__.co_firstlineno + 2
    assert f"test_spinning.py:{line} in {inner.__qualname__}" in str(ran.error)
    assert [event.name for event in ran.history.events] == ["number"]


def test_much_that_goes_on_is_not_spinning(monkeypatch: Any) -> None:
    """What is counted are callbacks without a step or a result in between."""
    monkeypatch.setattr(spinning, "MOST", 10_000)

    @pgflow.workflow
    async def busy(ctx: Ctx) -> int:
        total = 0
        for n in range(8):
            for _ in range(3_000):
                await asyncio.sleep(0)
            total += await ctx.activity(number, n)
        return total + sum(await asyncio.gather(*[ctx.activity(number, 1) for _ in range(6_000)]))

    assert run(busy).output == 28 + 6_000


def test_what_the_code_has_left_behind_may_spin(monkeypatch: Any) -> None:
    monkeypatch.setattr(spinning, "MOST", 100_000)

    @pgflow.workflow
    async def leaves(ctx: Ctx) -> int:
        async def spins() -> None:
            while True:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    pass

        task = asyncio.create_task(spins())
        await asyncio.sleep(0)
        assert not task.done()
        return await ctx.activity(number, 1) if ctx is None else 1

    assert run(leaves).output == 1


# The exception may arrive in a hook of the garbage collector that another library has set.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_arrives_while_the_run_executes_or_not_at_all() -> None:
    """A thread raises in a run's code at any moment; what the loop's thread does between two runs must meet none of
    that.
    """
    told: list[EngineError] = []
    loop = RunLoop(lambda: "a run", 7, lambda: 0.0, told.append, lambda: False)  # type: ignore[abstract]
    stopped = threading.Event()
    sent = 0

    def harass() -> None:
        nonlocal sent
        while not stopped.is_set():
            sent += spinning.interrupt(loop, EngineError("enough"))

    async def computes(rounds: int) -> int:
        for _ in range(rounds):
            pass
        return rounds

    chance = random.Random(1)
    ended: list[asyncio.Task[int]] = []
    thread = threading.Thread(target=harass)
    thread.start()
    try:
        for _ in range(3_000):
            with stage():
                ended.append(loop.create_task(computes(chance.randrange(3_000))))
                loop.drain()
            for _ in range(chance.randrange(50)):
                [None for _ in range(3)]  # what must not be hit
    finally:
        stopped.set()
        thread.join()
    assert sent == len(told) > 0
    assert not loop.interrupting
    with stage():
        loop.drain()
    hit = [task for task in ended if task.done() and task.exception() is not None]
    assert all(isinstance(task.exception(), spinning.RunInterrupted) for task in hit)
    assert len(hit) <= sent
