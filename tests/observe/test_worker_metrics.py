"""`/metrics`, `/livez` and `/readyz` of one worker. About 6 seconds."""

from __future__ import annotations

import asyncio
import socket
import sys
from dataclasses import dataclass

import psycopg
import pytest

import pgflow
from pgflow.worker import observation
from tests import waiting
from tests.observe.scraping import free_port, get, get_blocking, scrape, status
from tests.waiting import until

QUICKLY = pgflow.RetryPolicy(max_attempts=3, initial=0.01)


@pgflow.signal
@dataclass
class Go:
    number: int


@pgflow.activity
async def double(ctx: pgflow.ActivityContext, number: int) -> int:
    return number * 2


@pgflow.activity(transactional=True)
async def insert(ctx: pgflow.ActivityContext) -> None:
    await ctx.connection.execute("SELECT 1")


@pgflow.activity(retry=QUICKLY)
async def third_time(ctx: pgflow.ActivityContext) -> None:
    if ctx.attempt < 3:
        raise ConnectionError("not yet")


@pgflow.activity(retry=QUICKLY)
async def never(ctx: pgflow.ActivityContext) -> None:
    raise ValueError("never")


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext) -> int:
    go: Go = await ctx.listen(Go)
    return go.number


@pgflow.workflow
async def busy(ctx: pgflow.WorkflowContext) -> int:
    """A step of each kind that is counted."""
    await ctx.activity(double, 1)
    await ctx.activity(insert)
    await ctx.activity(third_time)
    other = await ctx.dispatch(child)
    await ctx.signal(Go(3), to=other.id)
    number = await other.output()

    async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        await ctx.activity(double, state)
        return pgflow.Continue(state + 1) if state < 10 else pgflow.Break(state)

    await ctx.loop(turn, 0, commit_interval=3)
    return number


@pgflow.workflow
async def failing(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(never)


@pgflow.workflow
async def sleeping(ctx: pgflow.WorkflowContext) -> None:
    await ctx.sleep(3600)


ALL: list[pgflow.Workflow[..., object]] = [busy, child, failing, sleeping]


async def test_what_is_counted(dsn: str) -> None:
    port = free_port()
    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=ALL, metrics_port=port, metrics_host="127.0.0.1"),
    ):
        assert await get(port, "/livez") == await get(port, "/readyz?verbose=1") == (200, "ok\n")
        assert (await get(port, "/metric"))[0] == 404
        await (await client.dispatch(busy)).output(30)
        with pytest.raises(pgflow.WorkflowFailed):
            await (await client.dispatch(failing)).output(30)
        await client.dispatch(sleeping)
        await until(lambda: scrape_asleep(port), "the sleep")
        found = await scrape(port)
    assert found.sum("pgflow_steps_total", kind="activity", status="completed") == 14
    assert found.sum("pgflow_steps_total", kind="activity", status="failed") == 1
    assert found.sum("pgflow_steps_total", kind="loop", status="completed") == 1
    assert (
        found.sum("pgflow_steps_total", kind="child_workflow") == found.sum("pgflow_signals_total", event="sent") == 1
    )
    assert found.sum("pgflow_signals_total", event="consumed") == 1
    assert found.sum("pgflow_signals_total", event="set_aside") == 0
    attempts = {
        (one.labels["activity"], one.labels["outcome"]): one.value for one in found.all("pgflow_attempts_total")
    }
    assert attempts == {
        ("double", "completed"): 12,
        ("insert", "completed"): 1,
        ("third_time", "retried"): 2,
        ("third_time", "completed"): 1,
        ("never", "retried"): 2,
        ("never", "failed"): 1,
    }
    ended = {
        (one.labels["workflow"], one.labels["status"]) for one in found.all("pgflow_workflows_ended_total") if one.value
    }
    assert ended == {("busy", "completed"), ("child", "completed"), ("failing", "failed")}
    assert found.sum("pgflow_claimed_workflows_total", how="new") == 4
    assert found.sum("pgflow_runs_left_total", workflow="sleeping", how="asleep") == 1
    assert found.sum("pgflow_runs", state="asleep") == 1 and found.sum("pgflow_runs", state="running") == 0
    assert found.sum("pgflow_loop_advancements_total") >= 3 and found.sum("pgflow_loop_forgotten_rows_total") == 11
    assert found.sum("pgflow_loop_advancement_seconds_count") >= 1
    assert found.sum("pgflow_claim_seconds_count") >= 2 and found.all("pgflow_event_loop_lag_seconds_bucket", le="0.25")
    batches = found.sum("pgflow_flush_seconds_count")
    assert batches == found.sum("pgflow_flush_rows_count") == found.sum("pgflow_flush_rows_bucket", le="+Inf") >= 5
    assert found.sum("pgflow_backlog_rows") == found.sum("pgflow_leases_lost_total") == 0
    assert found.sum("pgflow_cpu_seconds_total") > 0
    assert await status(port, "/metrics") == 0, "the port is closed with the worker"


async def scrape_asleep(port: int) -> bool:
    return (await scrape(port)).sum("pgflow_runs_left_total", workflow="sleeping") > 0


async def test_replays_are_told_from_beginnings(dsn: str) -> None:
    port = free_port()
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=ALL):
            handle = await client.dispatch(child)
            await waiting.status(client, handle, "sleeping")
        async with pgflow.Worker(dsn, workflows=ALL, metrics_port=port):
            await client.signal(Go(1), to=handle.id)
            assert await handle.output(30) == 1
            found = await scrape(port)
    assert found.sum("pgflow_claimed_workflows_total", workflow="child", how="replayed") == 1
    assert found.sum("pgflow_claimed_workflows_total", how="new") == 0
    assert found.sum("pgflow_replayed_rows_total") == 1


async def test_nothing_is_counted_without_a_port(dsn: str) -> None:
    worker = pgflow.Worker(dsn, workflows=ALL)
    async with worker, pgflow.Client(dsn) as client:
        await (await client.dispatch(busy)).output(30)
        assert worker.observation.metrics is None


async def test_a_port_that_is_taken(dsn: str) -> None:
    """That is said at once, and the worker has not even registered."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        worker = pgflow.Worker(dsn, workflows=ALL, metrics_port=port, metrics_host="127.0.0.1")
        with pytest.raises(
            pgflow.PgflowError, match=f"port {port} at 127.0.0.1 cannot be opened: Address already in use"
        ):
            await worker.run()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pgflow.workers").fetchone() == (0,)


async def test_a_library_that_is_missing(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(pgflow.PgflowError, match=r"install pgflow-engine\[metrics\]"):
        await pgflow.Worker(dsn, workflows=ALL, metrics_port=free_port()).run()


@pytest.mark.parametrize("port", [-1, 65_536, True, "9100"])
def test_what_is_no_port(port: int) -> None:
    with pytest.raises(ValueError, match="metrics_port=.*expected a port"):
        pgflow.Worker("", workflows=ALL, metrics_port=port)


async def test_a_worker_that_is_being_stopped_is_alive_and_not_ready(dsn: str) -> None:
    go_on = asyncio.Event()
    began = asyncio.Event()

    @pgflow.activity(timeout=None)
    async def held(ctx: pgflow.ActivityContext) -> None:
        began.set()
        await go_on.wait()

    @pgflow.workflow
    async def holding(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(held)

    port = free_port()
    worker = pgflow.Worker(dsn, workflows=[holding], metrics_port=port, grace=60)
    async with pgflow.Client(dsn) as client, worker:
        await client.dispatch(holding)
        await began.wait()
        assert (await scrape(port)).sum("pgflow_attempts", state="running") == 1
        worker.stop()
        assert await get(port, "/readyz") == (503, "it is being stopped\n")
        assert await status(port, "/livez") == 200
        go_on.set()


async def test_a_blocked_event_loop_is_not_alive(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a thread answers."""
    monkeypatch.setattr(observation, "DEAD", 0.3)
    port = free_port()

    @pgflow.activity
    async def careless(ctx: pgflow.ActivityContext) -> str:
        while True:
            code, text = get_blocking(port, "/livez")
            if code == 503:
                return text

    @pgflow.workflow
    async def asking(ctx: pgflow.WorkflowContext) -> str:
        return await ctx.activity(careless)

    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[asking], metrics_port=port):
        said = await (await client.dispatch(asking)).output(60)
        await until(lambda: alive(port), "the event loop")
    assert said.startswith("the event loop has not answered for")


async def alive(port: int) -> bool:
    return await status(port, "/livez") == 200


async def test_a_lease_that_is_lost_is_counted(dsn: str) -> None:
    port = free_port()
    worker = pgflow.Worker(dsn, workflows=ALL, metrics_port=port)
    async with worker:
        with psycopg.connect(dsn, autocommit=True) as connection:
            first = worker.id
            connection.execute("DELETE FROM pgflow.workers")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name LIKE 'pgflow %'"
            )
            await until(lambda: worker.id not in (None, first), "another registration")
        assert (await scrape(port)).sum("pgflow_leases_lost_total") == 1
        await until(lambda: ready(port), "the new lease")


async def ready(port: int) -> bool:
    return await status(port, "/readyz") == 200


async def test_a_schema_that_has_become_too_new(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation, "BETWEEN_LOOKS", 0.0)
    port = free_port()
    async with pgflow.Worker(dsn, workflows=ALL, metrics_port=port):
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("UPDATE pgflow.schema_info SET compatible_from = 9999")

            async def unready() -> bool:
                return not await ready(port)

            await until(unready, "the look at the schema")
            code, said = await get(port, "/readyz")
            assert code == 503 and "is too new" in said and await alive(port)
            connection.execute("UPDATE pgflow.schema_info SET compatible_from = 1")
            await until(lambda: ready(port), "the other look")
