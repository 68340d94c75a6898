"""SIGKILL: another worker goes on with what the dead one held. About 10 seconds."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow.store.leasing.leases import recover
from pgflow.uuid7 import uuid7
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on, marked, marks, run_of, worker_process

HOUR = "3600"


async def test_a_killed_worker_is_noticed_long_before_its_lease_expires(scene: Scene, client: pgflow.Client) -> None:
    handle = await client.dispatch(flows.holding, "work")
    with worker_process(scene, "--lease", HOUR) as dead, ExitStack() as stack:
        number = await dead.registered()
        await marked(scene, "work begins")
        heir = stack.enter_context(worker_process(scene, "--lease", HOUR))
        await heir.registered()
        dead.send(signal.SIGKILL)
        await marked(scene, "work begins", times=2)
        # The lease was good when the heir took over: it was the session's end that told.
        assert run_of(scene, handle.id)[:2] == ("running", heir.ids[0])
        await until(lambda: scene.all("SELECT id FROM workers WHERE id = %s", number) == [], "the burial")
        let_go_on(scene, "work")
        assert await handle.output(20) == "work of attempt 2"
    # Nothing else ran in the process that died: that was an attempt.
    assert marks(scene) == [("work begins", dead.pid, 1), ("work begins", heir.pid, 2), ("work ends", heir.pid, 2)]
    assert [(e.name, e.attempts) for e in await client.history(handle.id)] == [("add", 1), ("held", 2), ("add", 1)]


@pytest.fixture
def humble_dsn(scene: Scene) -> Iterator[str]:
    """As a role that may work on the tables, but neither notify nor use advisory locks, nor PL/pgSQL."""
    role = sql.Identifier(f"humble_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(scene.database.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'humble'").format(role))
        functions = connection.execute(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace "
            "AND (proname = 'pg_notify' OR proname ~ 'advisory')"
        ).fetchall()
        assert len(functions) > 10
        for (function,) in functions:
            connection.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC".encode())
        connection.execute("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
        for text in (
            "GRANT USAGE ON SCHEMA pgflow TO {}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow, public TO {}",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA pgflow, public TO {}",
        ):
            connection.execute(sql.SQL(text).format(role))
        try:
            yield make_conninfo(scene.database.dsn, user=role.as_string().strip('"'), password="humble")
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
            connection.execute(sql.SQL("DROP ROLE {}").format(role))


async def test_where_locks_are_forbidden_the_lease_decides(
    scene: Scene, humble_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(flows.VARIABLE, humble_dsn)
    async with pgflow.Client(humble_dsn) as client:
        handle = await client.dispatch(flows.holding, "work")
        with worker_process(scene, "--lease", "2", dsn=humble_dsn) as dead, ExitStack() as stack:
            number = await dead.registered()
            assert scene.one("SELECT lock_key FROM workers WHERE id = %s", number) is None
            await marked(scene, "work begins")
            heir = stack.enter_context(worker_process(scene, "--lease", HOUR, dsn=humble_dsn))
            await heir.registered()
            dead.send(signal.SIGKILL)
            await dead.ended()
            expiry = scene.one("SELECT expires_at FROM workers WHERE id = %s", number)
            await until(lambda: (run_of(scene, handle.id) or ("", number))[1] != number, "the takeover")
            assert scene.one("SELECT now() >= %s", expiry)
            await marked(scene, "work begins", times=2)
            let_go_on(scene, "work")
            assert await handle.output(20) == "work of attempt 1"


async def test_nobody_is_dead_by_a_missing_lock_for_whoever_does_not_see_its_own(scene: Scene) -> None:
    """Behind some routers no lock is seen, not even one's own."""
    looker, other = scene.worker(), scene.worker(lock_key=7)
    run = scene.run(other)
    assert await recover(scene.database, looker, own_key=lambda: 8) == 0
    assert await recover(scene.database, looker) == 0
    assert run_of(scene, run)[:2] == ("running", other)
    with scene.other() as connection:
        connection.execute("SELECT pg_advisory_lock(8)")
        assert await recover(scene.database, looker, own_key=lambda: 8) == 1
    assert run_of(scene, run)[:2] == ("pending", None)


async def test_without_notifications_everything_is_found_by_polling(
    scene: Scene, humble_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every feature, by a role that may neither notify nor lock."""
    monkeypatch.setenv(flows.VARIABLE, humble_dsn)
    async with pgflow.Client(humble_dsn) as client:
        async with pgflow.Worker(humble_dsn, workflows=flows.ALL, poll=0.1):
            for number in range(5):  # the first may be found by the looks of a beginning
                assert await (await client.dispatch(flows.sums, number)).output(30) == (number + 1) * 10
            handles = [
                await client.dispatch(flows.sums, 4),
                await client.dispatch(flows.sleeper, 1, 1.1),
                await client.dispatch(flows.turning, 45),
                await client.dispatch(flows.hurried, 0.1),
            ]
            assert [await handle.output(30) for handle in handles] == [50, 3, 45, "late"]


async def test_lost_notifications_only_delay(scene: Scene, client: pgflow.Client) -> None:
    """Work that appears without a word, as when every hint is lost."""
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, poll=0.1):
        for number in range(5):
            run = uuid7()
            scene.do("INSERT INTO workflows (id, name, input) VALUES (%s, 'sums', %s)", run, f'{{"number": {number}}}')
            scene.do("INSERT INTO runs (workflow_id, name, status, wake_at) VALUES (%s, 'sums', 'pending', now())", run)
            assert await client.output(run, 20) == (number + 1) * 10


async def test_several_processes_end_with_their_supervisor(scene: Scene, client: pgflow.Client) -> None:
    with worker_process(scene, "--processes", "2", "--lease", HOUR) as supervisor:
        await until(lambda: scene.one("SELECT count(*) FROM workers") == 2, "two workers")
        children = [psutil.Process(pid) for pid in scene.all("SELECT pid FROM workers")]
        assert {child.ppid() for child in children} == {supervisor.pid}
        # One that dies is replaced, and buried by the other or by its successor.
        children[0].kill()
        await until(lambda: children[0].pid not in scene.all("SELECT pid FROM workers"), "the burial")
        await until(lambda: len(_living(scene)) == 2, "a new worker")
        children = [psutil.Process(pid) for pid in _living(scene)]
        handle: pgflow.WorkflowHandle[str] = await client.dispatch(flows.holding, "work")
        await marked(scene, "work begins")
        let_go_on(scene, "work")
        supervisor.send(signal.SIGKILL)
        await until(lambda: not any(_runs(child) for child in children), "the end of the children")
    assert scene.all("SELECT id FROM workers") == [], "they have handed everything back"
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        assert await handle.output(20) == "work of attempt 1"


async def test_several_processes_stop_together(scene: Scene) -> None:
    with worker_process(scene, "--processes", "2", "--lease", HOUR) as supervisor:
        await until(lambda: scene.one("SELECT count(*) FROM workers") == 2, "two workers")
        supervisor.send(signal.SIGTERM)
        assert await supervisor.ended() == 0, supervisor.log
    assert scene.all("SELECT id FROM workers") == []


def _living(scene: Scene) -> list[int]:
    return [
        pid for pid in scene.all("SELECT pid FROM workers") if psutil.pid_exists(pid) and _runs(psutil.Process(pid))
    ]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
