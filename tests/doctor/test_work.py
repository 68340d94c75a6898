"""Work that nobody takes, workers that are gone, signals that arrive nowhere, histories that grow: one by one."""

from __future__ import annotations

import json
import signal
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

import pgflow
from pgflow.cli import main
from pgflow.history.location import encode
from pgflow.store.doctor import check_histories, check_work
from tests.doctor.conftest import Examine, ask, examined
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import worker_process


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is due is due for long, and who is silent has been so for long."""
    monkeypatch.setattr(check_work, "DUE", 0.0)
    monkeypatch.setattr(check_work, "GRACE", 0.0)
    monkeypatch.setattr(check_work, "UNDELIVERED", 0.0)


async def test_work_that_nobody_takes(scene: Scene, dsn: str, only: Examine, impatient: None) -> None:
    """No worker; then none for its queue, and none that knows its name; then one that is full."""
    with pgflow.SyncClient(dsn) as client:
        slow = client.start(flows.sums.options(queue="slow"), 3)
        (finding,) = only("work", "error")
        assert "there is no worker" in finding.found and "--queue slow" in finding.advice
        assert finding.where == (str(slow.id),)
        with worker_process(scene, "--concurrency", "1") as process:
            await process.registered()
            unknown = client.dispatch("unknown")
            found = {finding.where[0]: finding for finding in only("work", "error")}
            assert 'none of 1 workers serves the queue "slow"' in found[str(slow.id)].found
            assert "none of them knows the name" in found[str(unknown.id)].found
            assert "`pgflow workflow terminate --name unknown`" in found[str(unknown.id)].advice
            client.terminate(slow.id)
            client.terminate(unknown.id)
            first, second = (client.dispatch(flows.holding, name) for name in ("a", "b"))
            await until(lambda: client.get(first.id).status == "running", "the first")
            (finding,) = only("work", "warning")
            assert finding.where == (str(second.id),) and "are full, or slow: 1 workflows run" in finding.found


def test_where_work_is_late(dsn: str, only: Examine) -> None:
    """Not before a minute has passed."""
    with pgflow.SyncClient(dsn) as client:
        client.dispatch("unknown")
        assert examined(dsn).findings == []
        ask(dsn, "UPDATE pgflow.runs SET wake_at = now() - interval '3 min'")
        assert "due for up to 3 min" in only("work", "error")[0].found


async def test_a_worker_that_was_killed(scene: Scene, dsn: str, only: Examine, impatient: None) -> None:
    """Its session has ended; nobody else is there to take over what it holds."""
    with pgflow.SyncClient(dsn) as client, worker_process(scene) as process:
        number = await process.registered()
        handle = client.dispatch(flows.holding, "a")
        await until(lambda: client.get(handle.id).status == "running", "the workflow")
        process.send(signal.SIGKILL)
        await process.ended()
        await until(lambda: examined(dsn).findings, "the end of its session")
        (finding,) = only("workers", "error")
        assert finding.where == (str(number),)
        assert f"process {process.pid}" in finding.found and "holds 1 workflows" in finding.found
        assert "no other worker" in finding.found and "start a worker" in finding.advice


async def test_a_worker_that_stands_still(scene: Scene, dsn: str, only: Examine, impatient: None) -> None:
    """Its session is there, and it sends no heartbeat."""
    with worker_process(scene, "--lease", "2") as process:
        number = await process.registered()
        process.send(signal.SIGSTOP)
        try:
            await until(lambda: examined(dsn).findings, "the silence")
            (finding,) = only("workers", "warning")
        finally:
            process.send(signal.SIGCONT)
    assert finding.where == (str(number),)
    assert "stands still" in finding.found and f"kill -CONT {process.pid}" in finding.advice


def test_a_workflow_that_kills_processes(dsn: str, only: Examine) -> None:
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch("poison")
    ask(dsn, "UPDATE pgflow.runs SET suspicions = '{1,2}'")
    assert examined(dsn).findings == []
    ask(dsn, "UPDATE pgflow.runs SET suspicions = '{1,2,3}'")
    (finding,) = only("suspects", "warning")
    assert finding.where == (str(handle.id),) and finding.found.startswith("3 processes died")


def test_dead_letters(dsn: str, only: Examine) -> None:
    with pgflow.SyncClient(dsn) as client:
        handle = client.dispatch("receiver")
    for _ in range(7):
        ask(
            dsn,
            "INSERT INTO pgflow.signals (id, workflow_id, name, body, number, dropped_at, problem) "
            "VALUES (pgflow.uuid7(), %s, 'deposit', '{}', 1, now(), 'no cents')",
            handle.id,
        )
    (finding,) = only("dead letters", "warning")
    assert '7 signals "deposit"' in finding.found and len(finding.where) == 5
    assert f"pgflow signal redeliver {finding.where[0]}" in finding.advice


def test_signals_and_requests_that_nobody_delivers(dsn: str, only: Examine, impatient: None) -> None:
    with pgflow.SyncClient(dsn) as client:
        handle = client.start(flows.sleeper.options(queue="later"), 1, 3600)
        ask(dsn, "UPDATE pgflow.runs SET wake_at = now() + interval '1 h', epoch = 1")
        ask(dsn, "SELECT pgflow.signal(%s, 'deposit', '{}'), pgflow.cancel(%s)", handle.id, handle.id)
    found = only("mail", "error")
    assert ["oldest signal" in finding.found for finding in found] == [True, False]
    assert all(finding.where == (str(handle.id),) and "no worker" in finding.found for finding in found)


def test_upkeep_that_is_not_done(dsn: str, only: Examine) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(77)")
        ask(
            dsn,
            "INSERT INTO pgflow.workers (host, pid, lock_key, version, queues, started_at, expires_at) "
            "VALUES ('here', 1, 77, '1', '{default}', now() - interval '3 h', now() + interval '1 h')",
        )
        assert examined(dsn).findings == []
        ask(dsn, "UPDATE pgflow.chores SET next_at = now() - interval '2 h' WHERE name = 'audit'")
        (finding,) = only("upkeep", "warning")
    assert finding.where == ("audit",) and "due for 2 h" in finding.found


def planted(dsn: str, steps: list[tuple[Any, ...]]) -> str:
    """A workflow that sleeps, with rows of history."""
    with pgflow.SyncClient(dsn) as client:
        id = client.dispatch("long").id
    ask(dsn, "UPDATE pgflow.runs SET wake_at = NULL, status = 'sleeping', waiting_for = '{go}'")
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO pgflow.events (workflow_id, location, kind, status, loop_progress) "
            "VALUES (%s, %s, %s, %s, %s)",
            [(id, *step) for step in steps],
        )
    return str(id)


def test_a_history_that_grows(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_histories, "LONG", 300)
    id = planted(dsn, [(encode(((n,),)), "activity", "completed", None) for n in range(1, 301)])
    (finding,) = only("histories", "warning")
    assert finding.where == (id,) and "has 300:" in finding.found and f"pgflow workflow history {id}" in finding.advice
    ask(dsn, "DELETE FROM pgflow.events WHERE location = '1'")
    assert examined(dsn).findings == []


def test_a_loop_that_does_not_forget(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_histories, "LOOP_ROWS", 100)
    turns = [
        (encode(((2,), (turn,), (step,))), "activity", "completed", None) for turn in range(31, 331) for step in (1, 2)
    ]
    id = planted(dsn, [(encode(((2,),)), "loop", "pending", 30), *turns])
    (finding,) = only("loops", "warning")
    assert finding.where == (id,)
    assert "the loop at {2}" in finding.found and "forgotten 30 turns and has 300 more" in finding.found
    monkeypatch.setattr(check_histories, "TURNS", 301)
    assert examined(dsn).findings == []


def test_the_command(dsn: str) -> None:
    """Exits with 0 for what is only worth knowing, and with 1 where a person is needed."""

    def doctor(*options: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["doctor", "--dsn", dsn, *options], prog_name="pgflow")
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result.exit_code, result.output

    code, printed = doctor()
    assert code == 0 and "checks: nothing is wrong" in printed
    ask(dsn, "INSERT INTO pgflow.roles (role, kind) VALUES ('no longer there', 'reader')")
    code, printed = doctor()
    assert code == 0 and "info: roles: the role no longer there" in printed
    ask(dsn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgflow.runs_claimable'::regclass")
    code, printed = doctor()
    assert (
        code == 1 and printed.index("warning: indexes:") < printed.index("info: roles:") and "do: `pgflow db" in printed
    )
    code, printed = doctor("--json")
    found = json.loads(printed)
    assert code == 1 and found["level"] == "warning" and len(found["findings"]) == 2
    assert found["findings"][0].keys() == {"check", "level", "expected", "found", "advice", "where"}
    ask(dsn, "UPDATE pgflow.schema_info SET compatible_from = 9999")
    code, printed = doctor()
    assert code == 1 and "error: schema:" in printed
