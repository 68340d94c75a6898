"""SIGTERM: the worker claims no more, lets activities end, and hands everything back. About 12 seconds."""

from __future__ import annotations

import asyncio
import signal

import pytest

import pgflow
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on, marked, marks, run_of, unreachable, worker_process


@pytest.mark.parametrize("thread", [False, True])
async def test_running_activities_end_and_the_rest_is_handed_back(
    scene: Scene, client: pgflow.Client, thread: bool
) -> None:
    handle = await client.dispatch(flows.holding, "work", thread)
    with worker_process(scene, "--lease", "3600", "--grace", "60") as worker:
        number = await worker.registered()
        await marked(scene, "work begins")
        worker.send(signal.SIGTERM)
        await worker.logged("claiming has stopped")
        late = await client.dispatch(flows.sums, 1)
        let_go_on(scene, "work")
        assert await worker.ended() == 0, worker.log
    # Its result is recorded, the step after it has not begun; nothing is in the name of the worker, which is gone.
    assert [(e.name, e.status, e.attempts) for e in await client.history(handle.id)] == [
        ("add", "completed", 1),
        ("held_in_thread" if thread else "held", "completed", 1),
    ]
    assert run_of(scene, handle.id) == ("pending", None, 1)
    assert run_of(scene, late.id) == ("pending", None, 0)
    assert scene.one("SELECT wake_at <= now() FROM runs WHERE workflow_id = %s", handle.id)
    assert scene.all("SELECT id FROM workers WHERE id = %s", number) == []
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        assert await handle.output(20) == "work of attempt 1"
    assert [what for what, _, _ in marks(scene)] == ["work begins", "work ends"]


@pytest.mark.parametrize("thread", [False, True])
async def test_activities_that_outlive_the_grace_are_repeated_elsewhere(
    scene: Scene, client: pgflow.Client, thread: bool
) -> None:
    handle = await client.dispatch(flows.holding, "work", thread)
    sleeping = await client.dispatch(flows.sleeper, 1, 0.9)
    with worker_process(scene, "--lease", "3600", "--grace", "0.2") as worker:
        await worker.registered()
        await marked(scene, "work begins")
        worker.send(signal.SIGTERM)
        assert await worker.ended() == 0, worker.log
        assert "after 0.2 s of grace" in worker.log
    assert run_of(scene, handle.id) == ("pending", None, 1)
    assert run_of(scene, sleeping.id)[:2] == ("pending", None)
    assert [(e.name, e.status) for e in await client.history(handle.id)] == [("add", "completed")]
    let_go_on(scene, "work")
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        assert await handle.output(20) == "work of attempt 1"
        assert await sleeping.output(20) == 3
    assert [what for what, _, _ in marks(scene)] == ["work begins", "work begins", "work ends"]


async def test_hundreds_of_runs_are_handed_back(scene: Scene, client: pgflow.Client) -> None:
    """Those that wait in memory, those whose activity waits for its turn, and those in the middle of a loop."""
    await client.dispatch_many(flows.holding, [{"name": f"held {n}", "thread": True} for n in range(50)])
    await client.dispatch_many(flows.sleeper, [{"number": n, "seconds": 0.9} for n in range(300)])
    await client.dispatch_many(flows.turning, [{"turns": 500, "commit_interval": 3} for n in range(50)])
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, threads=10, grace=0.1, lease=3600) as worker:
        number = worker.id
        await until(lambda: scene.one("SELECT count(*) FROM runs WHERE worker_id = %s", number) > 300, "claims")
        await until(lambda: scene.one("SELECT count(*) FROM forgotten_events") > 50, "turns")
    assert scene.all("SELECT DISTINCT worker_id FROM runs") == [None]
    assert set(scene.all("SELECT DISTINCT status FROM runs")) <= {"pending", "sleeping"}
    assert scene.all("SELECT id FROM workers") == []


async def test_a_stop_while_the_database_is_gone_does_not_hang(
    scene: Scene, client: pgflow.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease is left to expire; whoever comes next begins the attempt again."""
    monkeypatch.setattr("pgflow.worker.session.LAST_WRITES", 0.3)
    monkeypatch.setattr("pgflow.store.leasing.leases.SIGN_OFF", 0.3)
    handle = await client.dispatch(flows.holding, "work")
    worker = pgflow.Worker(scene.database.dsn, workflows=flows.ALL, grace=0.1, poll=0.05, lease=3600)
    running = asyncio.create_task(worker.run())
    await marked(scene, "work begins")
    number = worker.id
    with unreachable(scene.database.dsn):
        await until(lambda: "no connection for claims" in caplog.text, "a claim that waits for the database")
        worker.stop()
        await asyncio.wait_for(running, 30)
    assert run_of(scene, handle.id) == ("running", number, 1)


@pytest.mark.parametrize("claims", [True, False])
async def test_the_last_transactions_of_a_worker_end_before_it_signs_off(scene: Scene, claims: bool) -> None:
    """What one of them claims, or has locked, is handed back with the rest, though nobody waits for its answer any
    more.
    """
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'pgflow%'"
    with scene.other() as last:
        async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL) as worker:
            own = worker.id
            run = scene.run(None if claims else own, name="of other code")
            if claims:
                last.execute("SELECT FROM workers WHERE id = %s FOR KEY SHARE", [own])
                last.execute(
                    "UPDATE runs SET status = 'running', worker_id = %s, claim = 99, epoch = 1, wake_at = NULL", [own]
                )
            else:
                last.execute("SELECT FROM runs FOR NO KEY UPDATE")
            worker.stop()
            await until(lambda: scene.sql.execute(blocked).fetchone() == (1,), "the worker waits for it")
            last.commit()
        assert run_of(scene, run) == ("pending", None, 1)
        assert scene.all("SELECT id FROM workers") == []
