"""A run ends, or goes to sleep, while something of it is still on its way: nothing of that is lost, written too late,
or waited for in vain.
"""

from __future__ import annotations

import asyncio
import os
import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgflow
from pgflow.errors import NondeterminismError
from pgflow.execution.engine import run as run_module
from pgflow.execution.engine.scope import Scope
from pgflow.execution.event_loop.stage import stage
from tests.execution.program_trees import TREES, CancelledTreeLives, Node, TreeLives, program_of
from tests.execution.simulator import Incarnation, World

GIVEN = os.environ.get("PGFLOW_PROGRAMS")
PROGRAMS = settings(
    max_examples=int(GIVEN or "480") // 4,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=GIVEN is None,  # as in test_random_programs.py
)


@pgflow.activity
async def a(ctx: pgflow.ActivityContext) -> int:
    return 1


@pgflow.activity
async def b(ctx: pgflow.ActivityContext) -> int:
    return 2


@pgflow.activity
async def x(ctx: pgflow.ActivityContext) -> int:
    return 3


@pgflow.activity
async def y(ctx: pgflow.ActivityContext) -> int:
    return 4


@pgflow.activity(transactional=True)
async def t(ctx: pgflow.ActivityContext) -> int:
    return 1


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=0.5, jitter=False))
async def soon(ctx: pgflow.ActivityContext) -> int:
    if ctx.attempt == 1:
        raise ValueError("again")
    return 1


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=1800, maximum=3600, jitter=False))
async def late(ctx: pgflow.ActivityContext) -> int:
    raise ValueError("in half an hour")


@pgflow.workflow
async def refused_while_a_loop_advances(ctx: pgflow.WorkflowContext) -> None:
    async def loops(ctx: pgflow.WorkflowContext) -> None:
        async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int]:
            return pgflow.Continue(state + await ctx.activity(a))

        await ctx.loop(turn, 0, commit_interval=1)

    async def refused(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(b)
        sleeping = asyncio.ensure_future(ctx.sleep(3600))  # its row is gathered by the pump that is refused
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        await sleeping

    await ctx.join(ctx.branch(loops), ctx.branch(refused), ctx.activity(x))


edited = False


@pgflow.workflow
async def refused_while_a_transaction_commits(ctx: pgflow.WorkflowContext) -> int:
    async def refused(ctx: pgflow.WorkflowContext) -> int:
        await ctx.activity(b)
        if not edited:
            await asyncio.sleep(1)
        return 0

    async def others(ctx: pgflow.WorkflowContext) -> int:
        return sum(await ctx.join(ctx.activity(y), ctx.activity(x)))

    return sum(await ctx.join(ctx.activity(t), ctx.branch(refused), ctx.branch(others)))


@pgflow.workflow
async def two_retries(ctx: pgflow.WorkflowContext) -> None:
    async def sleeper(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(b)
        await ctx.sleep(3600)

    await ctx.join(ctx.activity(soon), ctx.branch(sleeper), ctx.activity(late))


@pgflow.workflow
async def loop_beside(ctx: pgflow.WorkflowContext) -> None:
    async def loops(ctx: pgflow.WorkflowContext) -> None:
        async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int]:
            for _ in range(3):
                await ctx.activity(a)
            return pgflow.Continue(state + 1)

        await ctx.loop(turn, 0, commit_interval=1)

    async def others(ctx: pgflow.WorkflowContext) -> None:
        for _ in range(100):
            await ctx.activity(a)

    await ctx.join(ctx.branch(loops), ctx.branch(others))


def end_of(life: Incarnation, activity: str) -> str:
    """The choice by which an attempt of that activity ends."""
    return f"activity {next(i for i, call in enumerate(life.calls) if call.activity.name == activity)}"


def commit_all(life: Incarnation) -> None:
    while life.writes:
        life.take("commit")


def test_nothing_is_written_after_a_refusal_while_a_loop_advances() -> None:
    world = World(refused_while_a_loop_advances)
    life = Incarnation(world)
    life.take(end_of(life, "a"))
    commit_all(life)
    assert life.advances
    life.take(end_of(life, "b"))
    life.take("commit")
    commit_all(life)
    assert life.run.fatal is not None
    before = dict(world.events)
    life.take(end_of(life, "x"))
    commit_all(life)
    assert world.events == before


def test_a_refusal_while_a_transaction_commits_leaves_no_hole() -> None:
    """What had been gathered before is not written, and neither is what ends after it."""
    global edited
    edited = False
    world = World(refused_while_a_transaction_commits)
    life = Incarnation(world)
    commit_all(life)
    life.take(end_of(life, "b"))
    call = next(call for call in life.calls if call.activity.name == "t")
    life.calls.remove(call)
    begun: list[Any] = []
    call.caller.attempt_ready("1", begun.append)
    life.settle()
    life.take(end_of(life, "y"))  # gathered behind the transaction's turn
    life.take("commit")  # that of b: the transaction begins its own, and the code is refused
    assert begun and life.run.fatal is not None
    life.take(end_of(life, "x"))
    (write,) = begun
    assert world.commit(world.lives, write)
    write.on_commit(write, world.now)
    life.settle()
    commit_all(life)
    assert world.status == "failed"
    edited, world.status = True, "pending"
    life = Incarnation(world)
    while not life.ended:
        if choices := life.choices():
            life.take(choices[0])
    assert world.output == "8", world.error


def test_a_retry_that_is_due_is_not_slept_over() -> None:
    world = World(two_retries)
    life = Incarnation(world)
    life.take(end_of(life, "soon"))
    commit_all(life)
    life.take(end_of(life, "b"))
    life.take("commit")  # the sleep's row is handed over
    assert len(life.writes) == 1
    began = world.now
    life.take("timer")  # the retry is due, and begins when all that was handed over is durable
    life.take(end_of(life, "late"))  # nothing runs any more
    commit_all(life)
    assert world.status != "sleeping" or (world.wake_at is not None and world.wake_at - began < timedelta(seconds=5))
    assert not (world.status == "sleeping" and life.calls), "an attempt runs in a workflow that sleeps"


def test_a_stop_in_a_long_replay_that_has_gathered_an_advancement(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(loop_beside)
    life = Incarnation(world)
    while sum(1 for location in world.events if location.startswith("2,")) <= 90:
        if life.writes:
            life.take("commit")
            continue
        loops = [i for i, call in enumerate(life.calls) if "{1" in call.label]
        ended = sum(1 for location in world.events if location.startswith("1,"))
        others = [i for i, call in enumerate(life.calls) if "{1" not in call.label]
        life.take(f"activity {loops[0] if loops and ended < 4 else others[0]}")
    life.crash()
    world.status = "pending"
    monkeypatch.setattr(run_module, "_SLICE", -1.0)
    with monkeypatch.context() as patched:
        patched.setattr(Incarnation, "settle", lambda self: None)
        life = Incarnation(world)
    while life.scheduled and not life.run.advancing:
        run = life.scheduled.pop(0)
        run.scheduled = False
        with stage():
            run.pump()
    assert life.run.advancing and not life.advances
    life.run.stop()
    life.settle()
    while life.choices() and not life.ended:
        life.take(life.choices()[0])
    assert life.ended


@PROGRAMS
@given(TREES, st.integers(0, 2**32), st.integers(1, 25), st.sampled_from([0.0, 0.1]), st.booleans())
def test_refused_at_any_step(tree: Node, seed: int, at: int, crash: float, cancelled: bool) -> None:
    """It ends, nothing is written after the refusal, and a retry under mended code completes."""
    rng = random.Random(seed)
    lives = (CancelledTreeLives if cancelled else TreeLives)(program_of(tree))
    lives.check = lambda: None  # type: ignore[method-assign]
    called, call_step = 0, Scope.call

    def call(self: Scope, *given: Any) -> None:
        nonlocal called
        call_step(self, *given)
        called += 1
        if called == at:
            self.run.end_with(NondeterminismError("refused"))

    refused = False
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Scope, "call", call)
        while not (refused or lives.ended):
            life = lives.begin()
            handed_over = list(life.writes) if life.run.fatal else None
            while not life.ended:
                choices = life.choices()
                assert choices, f"stuck: {life.run.fatal!r} {lives.world.locations()}"
                choice = lives.pick(rng, choices)
                if handed_over is None:
                    lives.take(life, choice)
                else:
                    life.take(choice)
                    assert all(write in handed_over or not write.rows for write in life.writes)
                if handed_over is None and life.run.fatal is not None:
                    handed_over = list(life.writes)
                if handed_over is None and not life.ended and rng.random() < crash:
                    life.crash()
            refused = handed_over is not None
    if refused:
        assert lives.world.status == "failed"
        lives.world.status, lives.longest = "pending", []
        del lives.check
        lives.live(rng, 0)
        lives.check_end()


@PROGRAMS
@given(TREES, st.integers(0, 2**32), st.floats(0.02, 0.3), st.booleans())
def test_stopped_at_any_moment(tree: Node, seed: int, stop: float, cancelled: bool) -> None:
    """Handed back, by a stop or at the end of the grace period, it goes on elsewhere."""
    rng = random.Random(seed)
    lives = (CancelledTreeLives if cancelled else TreeLives)(program_of(tree))
    while not lives.ended:
        life = lives.begin()
        stopped = False
        while not life.ended:
            choices = life.choices()
            assert choices, f"stuck: {stopped=} {lives.world.locations()}"
            lives.take(life, lives.pick(rng, choices))
            if not life.ended and rng.random() < stop:
                if stopped:
                    life.run.give_up_attempts()
                else:
                    life.run.stop()
                stopped = True
                life.settle()
                lives.check()
    lives.check_end()
