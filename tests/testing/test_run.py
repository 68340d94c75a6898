"""`pgflow.testing.run`: every feature once, in memory. About 1 second."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

import pgflow
from pgflow.testing import replay, run
from tests.execution.lives import Seen
from tests.execution.programs import PROGRAMS
from tests.messages import flows


@pgflow.signal
@dataclass
class Approved:
    by: str


@pgflow.activity
async def charge(ctx: pgflow.ActivityContext, order: int) -> str:
    await asyncio.sleep(0)
    return f"receipt {order}"


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=4))
def stumble(ctx: pgflow.ActivityContext, until: int) -> int:
    if ctx.attempt < until:
        raise ConnectionError(f"attempt {ctx.attempt}")
    return ctx.attempt


@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext, order: int, patience: timedelta = timedelta(days=3)) -> list[str]:
    approved = await ctx.listen(Approved, timeout=patience)
    if approved is None:
        return ["nobody"]
    await ctx.sleep(timedelta(days=30))
    return [approved.by, await ctx.activity(charge, order), str((ctx.now() - ctx.created_at).days)]


def test_signals_sleeps_and_activities() -> None:
    ran = run(checkout, 7, signals=[Approved("eva")])
    assert (ran.status, ran.output) == ("completed", ["eva", "receipt 7", "30"])
    assert run(checkout, order=7).output == ["nobody"]


def test_fakes_by_themselves_and_by_name() -> None:
    asked = []

    def fake(ctx: pgflow.ActivityContext, order: int) -> str:
        asked.append((ctx.name, ctx.attempt, order))
        return "fake"

    async def slower(ctx: pgflow.ActivityContext, order: int) -> str:
        return "async fake"

    assert run(checkout, 7, signals=[Approved("eva")], activities={charge: fake}).output[1] == "fake"
    assert run(checkout, 7, signals=[Approved("eva")], activities={"charge": slower}).output[1] == "async fake"
    assert asked == [("charge", 1, 7)]
    with pytest.raises(TypeError, match='in place of "charge"'):
        run(checkout, 7, activities={charge: "receipt"})  # type: ignore[dict-item]


def test_fakes_that_replace_nothing() -> None:
    """The real activity would be executed; but not every fake has to be used."""

    def fake(ctx: pgflow.ActivityContext, *args: Any) -> str:
        return "fake"

    executed: list[str] = []

    @pgflow.activity
    async def dun(ctx: pgflow.ActivityContext) -> str:
        executed.append("dun")
        return "real"

    @pgflow.workflow
    async def dunning(ctx: pgflow.WorkflowContext) -> str:
        return await ctx.activity(dun.options(name="dun_again"))

    with pytest.raises(ValueError, match='no activity is called "dun_agian".*The real one'):
        run(dunning, activities={"dun_agian": fake})
    with pytest.raises(ValueError, match="is it meant to be 'stumble'"):
        run(dunning, activities={"stumbel": fake})
    with pytest.raises(ValueError, match='two fakes for "dun"'):
        run(dunning, activities={"dun": fake, dun: fake})
    with pytest.raises(TypeError, match="@pgflow.activity, not <function.*put @pgflow.activity on the function"):
        run(dunning, activities={fake: fake})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r'"checkout" is a workflow: run it as a branch'):
        run(dunning, activities={checkout: fake})  # type: ignore[dict-item]
    assert executed == []
    assert (
        run(dunning, activities={dun.options(name="dun_again"): fake, stumble: fake, "charge": fake}).output == "fake"
    )
    again = dun.options(name="dun_again")
    assert run(dunning, activities={again.name: fake}).output == "fake", "known as long as it is in use"


def test_what_else_cannot_be_given() -> None:
    for given, said in (({"limit": 0}, "limit=0"), ({"limit": True}, "limit=True"), ({"tags": {"a": []}}, "not flat")):
        with pytest.raises(ValueError, match=said):
            run(checkout, 7, **given)


def test_a_fake_that_returns_another_type_is_noticed() -> None:
    ran = run(checkout, 7, signals=[Approved("eva")], activities={charge: lambda ctx, order: 7})
    assert ran.status == "failed"
    with pytest.raises(pgflow.ActivityFailed, match="SerializationError"):
        print(ran.output)


def test_failures_and_retries() -> None:
    @pgflow.workflow
    async def patient(ctx: pgflow.WorkflowContext, until: int) -> int:
        return await ctx.activity(stumble, until)

    ran = run(patient, 4)
    assert ran.output == 4 and ran.history.events[0].attempts == 4
    ran = run(patient, 5)
    assert isinstance(ran.error, pgflow.ActivityFailed) and ran.error.error_message == "attempt 4"
    with pytest.raises(TypeError):
        run(patient)


def test_what_leaves_the_code_is_raised_as_itself() -> None:
    @pgflow.workflow
    async def wrong(ctx: pgflow.WorkflowContext) -> None:
        await ctx.sleep(60)
        raise KeyError("wrong")

    with pytest.raises(KeyError, match="wrong"):
        print(run(wrong).output)


def test_code_that_a_replay_could_not_repeat_is_found() -> None:
    @pgflow.workflow
    async def dice(ctx: pgflow.WorkflowContext) -> None:
        for _ in range(20):
            if random.random() < 0.5:
                await ctx.activity(charge, 1)
            await ctx.sleep(60)

    ran = run(dice)
    assert isinstance(ran.error, pgflow.HistoryDiverged | pgflow.LatentHistory)


def test_a_workflow_that_waits_for_ever() -> None:
    @pgflow.workflow
    async def waits(ctx: pgflow.WorkflowContext) -> str:
        return str((await ctx.listen(Approved)).by)

    ran = run(waits)
    assert (ran.status, ran.error) == ("sleeping", None)
    with pytest.raises(pgflow.PgflowError, match="it waits at listen approved.*signals="):
        print(ran.output)
    assert replay(waits, ran.history).next_steps == ('listen "approved" at {1}',)


def test_a_workflow_that_never_ends_is_left_at_the_limit() -> None:
    @pgflow.workflow
    async def ever(ctx: pgflow.WorkflowContext, pause: bool) -> None:
        async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Continue[int]:
            if pause:
                await ctx.sleep(60)
            return pgflow.Continue(n + 1)

        await ctx.loop(turn, 0)

    for pause in (True, False):
        ran = run(ever, pause, limit=500)
        assert ran.status in ("sleeping", "running")
        assert (ran.history.events[0].loop_progress or 0) >= 20


def test_state_tags_and_signals_to_others() -> None:
    @pgflow.activity
    def count(ctx: pgflow.ActivityContext) -> int:
        ctx.state["count"] = ctx.state.get("count", 0) + 1
        ctx.update_tags({"count": ctx.state["count"]})
        return int(ctx.state["count"])

    @pgflow.workflow
    async def counting(ctx: pgflow.WorkflowContext) -> list[Any]:
        first = await ctx.activity(count)
        await ctx.sleep(60)
        await ctx.signal(Approved("me"), workflow="another", tags={"customer": 7})
        return [first, await ctx.activity(count), ctx.tags]

    ran = run(counting, tags={"customer": 7})
    assert ran.output == [1, 2, {"customer": 7}]
    assert "signal_send" in [event.kind for event in ran.history.events]


@pytest.mark.parametrize("name", PROGRAMS)
def test_everything_that_happens_at_once(name: str) -> None:
    seen = Seen()
    ran = run(PROGRAMS[name](seen))
    assert ran.status == "completed", ran.error
    again = Seen()
    found = replay(PROGRAMS[name](again), ran.history.to_json())
    assert found.same_output and again.entries == seen.entries[len(seen.entries) - len(again.entries) :], (
        "the last life saw it all"
    )


async def test_from_within_a_task() -> None:
    assert run(checkout, 7, signals=[Approved("eva")]).output[1] == "receipt 7"


def test_an_old_run_for_new_code() -> None:
    """A history from memory is one to replay under code that has changed."""

    @pgflow.workflow(name="checkout")
    async def edited(ctx: pgflow.WorkflowContext, order: int) -> None:
        await ctx.activity(charge, order)

    with pytest.raises(pgflow.HistoryDiverged):
        replay(edited, run(checkout, 7).history)


def test_messages_go_nowhere_and_stand_in_history() -> None:
    ran = run(flows.publish, 2, labels={"n": 1})
    assert ran.output == 2
    assert [(event.kind, event.name) for event in ran.history.events] == [("message_send", "progress")] * 2
    assert json.loads(ran.history.events[1].input or "")["tags"] == {"n": 1}
    assert replay(flows.publish, ran.history).same_output is True


def test_a_workflow_that_signals_itself() -> None:
    """It is the only receiver that there is; everybody else is taken to be there."""

    @pgflow.workflow
    async def answering(ctx: pgflow.WorkflowContext) -> list[str | None]:
        await ctx.signal(Approved("somebody"), to=UUID(int=9))
        await ctx.signal(Approved("myself"), to=ctx.id)
        mine = await ctx.listen(Approved, timeout=1)
        none = await ctx.listen(Approved, timeout=1)
        return [mine and mine.by, none and none.by]

    assert run(answering).output == ["myself", None]
