"""Which attempts a death counts as, judged by what the dead have left in the database; no process dies here."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

import pgflow
from pgflow.model.claimed import CONFIRM
from tests.store.scene import Scene
from tests.waiting import until


@pgflow.signal
@dataclass
class Word:
    """Nobody sends it."""


TWICE = pgflow.RetryPolicy(max_attempts=2, initial=0.01)


@pytest.fixture
def look(scene: Scene) -> pgflow.Activity[Any, Any]:
    """An activity that tells which attempt it is, and what is recorded of it while it runs."""

    @pgflow.activity(retry=TWICE)
    async def look(ctx: pgflow.ActivityContext) -> list[Any]:
        return [ctx.attempt, scene.all("SELECT ARRAY[attempts, (wake_at IS NULL)::int] FROM events")]

    return look


def flow_of(look: pgflow.Activity[Any, Any]) -> pgflow.Workflow[[], Any]:
    """A workflow of one step."""

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> Any:
        return await ctx.activity(look)

    return flow


def suspect(scene: Scene, id: UUID, deaths: int, seconds_ago: float = 60.0, uncounted: int | None = None) -> None:
    """So many processes that ran nothing else have died, without progress; the last one so long ago. All of these have
    still to be counted, or only the last ones.
    """
    scene.do(
        "UPDATE runs SET epoch = cardinality(d.ids), suspicions = d.ids, "
        "crashes = d.ids[cardinality(d.ids) + 1 - %s:], suspected_at = now() - make_interval(secs => %s) "
        "FROM (SELECT %s::bigint[]) AS d (ids) WHERE workflow_id = %s",
        deaths if uncounted is None else uncounted,
        seconds_ago,
        [*range(deaths)],
        id,
    )


def leave_row(scene: Scene, id: UUID, due: str = "NULL", status: str = "pending") -> None:
    """The row of the first step, as a process has left it."""
    scene.do(
        "INSERT INTO events (workflow_id, location, iteration, version, kind, name, status, attempts, input, wake_at) "
        f"VALUES ('{id}', '1', 0, 1, 'activity', 'look', '{status}', 0, '{{}}', {due})"
    )


async def test_the_first_death_counts_though_nothing_is_recorded_of_the_attempt(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any]
) -> None:
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 1)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        assert await handle.output(20) == [2, [[1, 1]]], "what is suspected has its attempts recorded as they begin"
    assert [event.attempts for event in await client.history(handle.id)] == [2]


@pytest.mark.parametrize("due", [None, "now() - interval '1 h'"])
async def test_an_attempt_that_had_not_begun_is_not_counted(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any], due: str | None
) -> None:
    """The process that died knew that it was suspected, and has recorded no beginning since the death before."""
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 2, uncounted=1)
    if due is not None:
        leave_row(scene, handle.id, due)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        assert await handle.output(20) == [1, [[0, 1]]]


@pytest.mark.parametrize("due", [None, "now() - interval '1 h'"])
@pytest.mark.parametrize("deaths", [2, 3])
async def test_a_death_counts_though_others_follow_before_it_is_counted(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any], deaths: int, due: str | None
) -> None:
    """The processes that died after it had not come to count it: what was in flight at the first death has begun."""
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, deaths)
    if due is not None:
        leave_row(scene, handle.id, due)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        assert await handle.output(20) == [2, [[1, 1]]], "one attempt, however many deaths there were"


async def test_an_attempt_whose_beginning_is_recorded_is_counted(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any]
) -> None:
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 4)
    leave_row(scene, handle.id)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        assert (await handle.output(20))[0] == 2, "one attempt has begun, however many deaths there were"


@pytest.mark.parametrize("begun", [False, True])
async def test_the_last_attempt_is_recorded_before_it_begins(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any], begun: bool
) -> None:
    """Where no death is known as well: nobody fails by a last attempt that never was."""
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 1)
    leave_row(scene, handle.id, "NULL" if begun else "now() - interval '1 h'")
    scene.do("UPDATE events SET attempts = 1")
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        if begun:
            with pytest.raises(pgflow.WorkflowFailed, match="failed after 2 attempts: WorkerCrashed"):
                await handle.output(20)
        else:
            assert await handle.output(20) == [2, [[1, 1]]]


async def test_an_attempt_that_is_the_last_of_several_is_recorded_on_a_quiet_day(
    scene: Scene, client: pgflow.Client
) -> None:
    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=0.01))
    async def look(ctx: pgflow.ActivityContext) -> None:
        seen.append((ctx.attempt, scene.all("SELECT wake_at IS NULL FROM events")))
        raise ValueError(ctx.attempt)

    seen: list[Any] = []
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        with pytest.raises(pgflow.WorkflowFailed, match="failed after 3 attempts"):
            await (await client.dispatch(flow_of(look))).output(20)
    assert seen == [(1, []), (2, [False]), (3, [True])]


async def test_nothing_is_counted_before_the_death_is_certain(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any]
) -> None:
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 1, 0.0)
    died_at = scene.one("SELECT suspected_at FROM runs")
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        assert (await handle.output(20))[0] == 2
    (event,) = await client.history(handle.id)
    assert event.created_at - died_at >= CONFIRM - timedelta(milliseconds=1)


async def test_whoever_comes_back_in_time_has_cost_no_attempt(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any]
) -> None:
    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 1, -3600.0)  # certain in an hour
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        await until(lambda: scene.one("SELECT epoch > 1 AND status = 'pending' FROM runs"), "it is left alone")
        assert scene.one("SELECT wake_at > now() + interval '50 min' FROM runs")
        assert scene.all("SELECT location FROM events") == []
        scene.do("UPDATE runs SET suspicions = NULL, crashes = NULL, wake_at = now()")
        assert await handle.output(20) == [1, []]


async def test_progress_made_where_nobody_lifts_suspicions_lifts_them(
    scene: Scene, client: pgflow.Client, look: pgflow.Activity[Any, Any]
) -> None:
    """As on a worker of a version that knows nothing of them."""

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> Any:
        await ctx.activity(look)
        await ctx.activity(look)
        await ctx.sleep(3600)

    handle = await client.dispatch(flow)
    suspect(scene, handle.id, 5)
    leave_row(scene, handle.id, status="completed")
    scene.do("UPDATE events SET seq = 1, attempts = 1, output = '[]', completed_at = now()")
    async with pgflow.Worker(scene.database.dsn, workflows=[flow]):
        await until(lambda: scene.one("SELECT status = 'sleeping' FROM runs"), "the sleep")
    left, event = (await client.history(handle.id))[:2]
    assert (left.attempts, event.attempts) == (1, 1)
    assert event.output == [1, [[1, 1]]], "the first step's row alone: the next attempt begins without one"
    assert scene.one("SELECT suspicions IS NULL AND crashes IS NULL FROM runs")


@pytest.mark.parametrize("deaths", [1, 2])
async def test_code_that_ends_its_process_fails_after_max_crashes(
    scene: Scene, client: pgflow.Client, deaths: int
) -> None:
    """If it is one, it takes a replay to tell that no activity was in flight."""

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        await ctx.sleep(0.5)

    handle = await client.dispatch(flow)
    suspect(scene, handle.id, deaths)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow], max_crashes=deaths):
        with pytest.raises(pgflow.WorkflowFailed, match=f"died {deaths} time"):
            await handle.output(20)


@pytest.mark.parametrize("step", ["sleep", "listen"])
async def test_it_fails_by_a_single_death_also_where_its_code_would_only_wait(
    scene: Scene, client: pgflow.Client, step: str
) -> None:
    """It does not go to sleep instead, without a row that says on what."""

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        await (ctx.sleep(3600) if step == "sleep" else ctx.listen(Word))

    handle = await client.dispatch(flow)
    suspect(scene, handle.id, 1)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow], max_crashes=1):
        with pytest.raises(pgflow.WorkflowFailed, match="died 1 time"):
            await handle.output(20)
    assert scene.all("SELECT location FROM events") == []


async def test_what_waits_for_its_turn_has_not_begun(scene: Scene, client: pgflow.Client) -> None:
    """A death is no attempt of what was asked for together with what was under way, and had no place yet."""

    @pgflow.activity(retry=TWICE)
    def hold(ctx: pgflow.ActivityContext) -> None:
        held.wait(60)

    @pgflow.activity
    async def ask(ctx: pgflow.ActivityContext) -> None:
        await asyncio.sleep(0 if held.is_set() else 3600)

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> None:
        await asyncio.gather(*[ctx.activity(hold) for _ in range(3)], ctx.activity(ask))

    held = threading.Event()
    handle = await client.dispatch(flow)
    suspect(scene, handle.id, 2, uncounted=1)
    begun = "SELECT name, wake_at IS NULL FROM events WHERE status = 'pending' ORDER BY location"
    try:
        async with pgflow.Worker(scene.database.dsn, workflows=[flow], threads=1, grace=0.1):
            waits = [("hold", False)] * 2
            await until(lambda: scene.all(begun) == [("hold", True), *waits, ("ask", True)], "one of each has begun")
            scene.do(
                "CREATE TABLE at_death AS SELECT location FROM events WHERE wake_at IS NULL AND status = 'pending'"
            )
    finally:
        held.set()
    scene.do("UPDATE events SET wake_at = NULL WHERE location IN (TABLE at_death)")
    suspect(scene, handle.id, 4, uncounted=1)
    scene.do("UPDATE runs SET wake_at = now()")
    async with pgflow.Worker(scene.database.dsn, workflows=[flow], threads=1):
        await handle.output(20)
    assert [event.attempts for event in await client.history(handle.id)] == [2, 1, 1, 2]


async def test_at_the_first_death_what_waited_for_its_turn_spends_an_attempt(
    scene: Scene, client: pgflow.Client
) -> None:
    """A limit that docs/safety.md tells of: nothing is recorded yet of what had begun."""

    @pgflow.activity(retry=TWICE)
    def hold(ctx: pgflow.ActivityContext) -> int:
        return ctx.attempt

    @pgflow.workflow
    async def flow(ctx: pgflow.WorkflowContext) -> list[int]:
        return await asyncio.gather(*[ctx.activity(hold) for _ in range(3)])

    handle = await client.dispatch(flow)
    suspect(scene, handle.id, 1)
    async with pgflow.Worker(scene.database.dsn, workflows=[flow], threads=1):
        assert await handle.output(20) == [2, 2, 2]


@pytest.mark.parametrize("last", [False, True])
async def test_an_attempt_that_was_cut_off_at_a_stop_has_not_begun_again(
    scene: Scene, client: pgflow.Client, last: bool
) -> None:
    """A process that dies after such a stop, before the next attempt begins, has none in flight."""
    stays = [True]

    @pgflow.activity(retry=TWICE)
    async def look(ctx: pgflow.ActivityContext) -> int:
        if stays:
            await asyncio.Event().wait()
        return ctx.attempt

    handle = await client.dispatch(flow_of(look))
    suspect(scene, handle.id, 2, uncounted=1)
    if last:
        leave_row(scene, handle.id, "now() - interval '1 h'")
        scene.do("UPDATE events SET attempts = 1")
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)], grace=0.1):
        await until(lambda: scene.all("SELECT wake_at IS NULL FROM events") == [True], "it has begun")
    stays.clear()
    suspect(scene, handle.id, 4, uncounted=1)
    scene.do("UPDATE runs SET wake_at = now()")
    async with pgflow.Worker(scene.database.dsn, workflows=[flow_of(look)]):
        assert await handle.output(20) == (2 if last else 1)
