"""The metrics of the database: what they show, and that they stay cheap, honest and there. About 5 seconds."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow.cli import main
from pgflow.database_metrics import Exporter
from pgflow.observe.exposition import exposition
from pgflow.store.queries import exporting
from tests import waiting
from tests.observe.scraping import Scrape, free_port, get, scrape, status
from tests.pooler import pooler
from tests.waiting import until

ROOT = Path(__file__).parents[2]
Connection = psycopg.Connection[tuple[object, ...]]


@pgflow.workflow
async def order(ctx: pgflow.WorkflowContext, fails: bool = False) -> None:
    if fails:
        raise ValueError("no")


@pgflow.workflow
async def sleeper(ctx: pgflow.WorkflowContext) -> None:
    await ctx.sleep(3600)


@pytest.fixture
def exporter(dsn: str) -> Iterator[Exporter]:
    made = Exporter(dsn)
    yield made
    made.close()


@pytest.fixture
def database(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=pgflow") as connection:
        yield connection


def read(exporter: Exporter) -> Scrape:
    body, _ = exposition(exporter.report().families, "text/plain")
    return Scrape.of(body.decode())


def again(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> Scrape:
    """Read anew, whatever is known."""
    monkeypatch.setattr("pgflow.database_metrics.GROUPS", [group._replace(keep=0.0) for group in exporting.GROUPS])
    return read(exporter)


async def test_what_there_is_to_see(dsn: str, exporter: Exporter, database: Connection) -> None:
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[order, sleeper]):
            await (await client.dispatch(order)).output(30)
            with pytest.raises(pgflow.WorkflowFailed):
                await (await client.dispatch(order, True)).output(30)
            await waiting.status(client, await client.dispatch(sleeper), "sleeping")
        for number in range(3):
            await client.dispatch(order, queue="night", priority=number)
        await client.dispatch(order, queue="night", run_at=datetime.now(UTC) + timedelta(hours=1))
        paused = await client.dispatch(order, queue="night")
        await client.pause(paused.id)
    database.execute(
        "UPDATE runs SET wake_at = now() - interval '1 hour' "
        "WHERE queue = 'night' AND status = 'pending' AND wake_at < now()"
    )
    database.execute(
        "INSERT INTO workers (host, pid, version, queues, expires_at) VALUES "
        "('here', 1, '0', '{night,default}', now() + interval '1 hour'), ('gone', 1, '0', '{night}', now())"
    )
    database.execute(
        "INSERT INTO signals (id, workflow_id, name, body, number, dropped_at, problem) VALUES "
        "(gen_random_uuid(), gen_random_uuid(), 'Paid', '{}', 1, now(), 'it does not fit')"
    )
    database.execute(
        "INSERT INTO signals (id, workflow_id, name, body, created_at) VALUES "
        "(gen_random_uuid(), gen_random_uuid(), 'Paid', '{}', now() - interval '1 minute')"
    )
    database.execute("UPDATE chores SET next_at = now() - interval '1 hour', held_until = NULL WHERE name = 'audit'")
    database.execute("ANALYZE")
    with psycopg.connect(dsn) as open_transaction:
        open_transaction.execute("CREATE TABLE pgflow_holds_back ()")
        found = read(exporter)
    assert found.sum("pgflow_up") == 1 and found.sum("pgflow_exporter_missing") == 0
    assert found.sum("pgflow_queue_due", queue="night", workflow="order") == 3
    assert 3600 <= found.sum("pgflow_queue_oldest_due_seconds", queue="night", workflow="order") < 7200
    assert found.all("pgflow_queue_due", queue="default")[0].value == 0
    assert {(one.labels["workflow"], one.labels["status"]): one.value for one in found.all("pgflow_workflows")} == {
        ("order", "completed"): 1,
        ("order", "failed"): 1,
        ("sleeper", "sleeping"): 1,
        ("order", "pending"): 4,
        ("order", "paused"): 1,
    }
    assert found.sum("pgflow_workers", queue="night") == found.sum("pgflow_workers", queue="default") == 1
    assert found.sum("pgflow_workers_expired") == 1
    assert found.sum("pgflow_dead_letters", signal="Paid") == found.sum("pgflow_undelivered_signals") == 1
    assert 60 <= found.sum("pgflow_undelivered_oldest_seconds") < 3600
    assert 3600 <= found.sum("pgflow_chore_overdue_seconds", chore="audit") < 7200
    assert found.sum("pgflow_suspected_workflows") == 0
    assert found.sum("pgflow_schema_version") > 0
    assert found.sum("pgflow_vacuum_held_back_seconds", by="transaction") > 0
    assert found.sum("pgflow_vacuum_held_back_transactions", by="transaction") >= 1
    assert found.sum("pgflow_vacuum_held_back_seconds", by="prepared") == 0
    assert found.sum("pgflow_table_bytes", table="runs") > 0
    assert {one.labels["table"] for one in found.all("pgflow_table_rows")} >= {"workflows", "runs", "events", "signals"}


async def test_it_is_not_asked_again_at_once(exporter: Exporter, database: Connection) -> None:
    assert read(exporter).sum("pgflow_workers_expired") == 0
    database.execute(
        "INSERT INTO workers (host, pid, version, queues, expires_at) VALUES ('gone', 1, '0', '{}', now())"
    )
    assert read(exporter).sum("pgflow_workers_expired") == 0


async def test_queues_that_become_empty_stay(
    exporter: Exporter, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever scales by their depth would see nothing instead of a zero."""
    fill(database, "runs", "SELECT gen_random_uuid(), 'order', 'q', 0, 'pending', now() FROM generate_series(1, 5)")
    assert again(exporter, monkeypatch).sum("pgflow_queue_due", queue="q") == 5
    database.execute("DELETE FROM runs")
    (one,) = again(exporter, monkeypatch).all("pgflow_queue_due", queue="q", workflow="order")
    assert one.value == 0


async def test_each_queue_gets_its_share_of_the_count(
    exporter: Exporter, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is due elsewhere."""
    monkeypatch.setattr(exporting, "COUNTED", 30)
    fill(database, "runs", "SELECT gen_random_uuid(), 'a', 'x', 0, 'pending', now() FROM generate_series(1, 1000)")
    fill(database, "runs", "SELECT gen_random_uuid(), 'b', 'x', 0, 'pending', now() FROM generate_series(1, 7)")
    fill(
        database,
        "runs",
        "SELECT gen_random_uuid(), 'a', 'y', 0, 'sleeping', now() - interval '1 day' * n "
        "FROM generate_series(1, 20) AS n",
    )
    found = again(exporter, monkeypatch)
    assert {(one.labels["queue"], one.labels["workflow"]): one.value for one in found.all("pgflow_queue_due")} == {
        ("x", "a"): 10,
        ("x", "b"): 7,
        ("y", "a"): 10,
    }
    assert found.sum("pgflow_queue_oldest_due_seconds", queue="y") >= 20 * 86_400


async def test_more_queues_and_priorities_than_are_shown(
    exporter: Exporter, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "SERIES", 50)
    fill(
        database,
        "runs",
        "SELECT gen_random_uuid(), 'a', 'q' || lpad((n / 2)::text, 3, '0'), n, 'pending', now() "
        "FROM generate_series(0, 199) AS n",
    )
    found = again(exporter, monkeypatch)
    assert [one.labels["queue"] for one in found.all("pgflow_queue_due")] == [f"q{number:03}" for number in range(25)]
    assert found.sum("pgflow_queue_due") == 50 and found.sum("pgflow_exporter_missing") == 0


async def test_large_tables_are_sampled(
    exporter: Exporter, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(
        database,
        "runs",
        "SELECT gen_random_uuid(), 'a', 'x', 0, CASE WHEN n % 4 = 0 THEN 'sleeping' ELSE 'failed' END, NULL "
        "FROM generate_series(1, 20000) AS n",
    )
    row = database.execute("SELECT pg_relation_size('runs') / current_setting('block_size')::int").fetchone()
    assert row is not None and isinstance(row[0], int)
    monkeypatch.setattr(exporting, "LIVE_PAGES", row[0] // 2)
    found = again(exporter, monkeypatch)
    assert 10_000 < found.sum("pgflow_workflows", status="failed") < 20_000
    assert 3_000 < found.sum("pgflow_workflows", status="sleeping") < 7_000


def fill(database: Connection, table: str, select: str) -> None:
    assert table == "runs"
    database.execute(f"INSERT INTO runs (workflow_id, name, queue, priority, status, wake_at) {select}".encode())


async def test_a_database_that_goes_and_comes(
    dsn: str, exporter: Exporter, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert again(exporter, monkeypatch).sum("pgflow_up") == 1
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgflow exporter'"
    database.execute(f"{ended} AND datname = current_database()".encode())
    assert again(exporter, monkeypatch).sum("pgflow_up") == 1, (
        "a connection that broke meanwhile is opened anew at once"
    )
    name = database.info.dbname
    with psycopg.connect(make_conninfo(dsn, dbname="template1"), autocommit=True) as elsewhere:
        elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        elsewhere.execute(ended.encode() + b" AND datname = %s", [name])
        found = again(exporter, monkeypatch)
        assert found.sum("pgflow_up") == 0 and not found.all("pgflow_workers_expired")
        assert all(one.value == 1 for one in found.all("pgflow_exporter_missing"))
        assert exporter.health().dead is None and "cannot be reached" in str(exporter.health().unready)
        elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
    found = again(exporter, monkeypatch)
    assert found.sum("pgflow_up") == 1 and found.sum("pgflow_exporter_missing") == 0
    assert exporter.health().unready is None


async def test_what_a_role_may_not_read_is_missing_and_the_rest_is_there(
    dsn: str, database: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    role = f"looks_{os.getpid()}"
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA pgflow TO {role}".encode())
    database.execute(f"GRANT SELECT ON workers, runs, chores, schema_info TO {role}".encode())
    exporter = Exporter(make_conninfo(dsn, user=role))
    try:
        found = read(exporter)
        assert found.sum("pgflow_up") == 1 and found.all("pgflow_workers_expired")
        missing = {one.labels["group"] for one in found.all("pgflow_exporter_missing") if one.value}
        assert missing == {"signals", "letters", "ended"} and not found.all("pgflow_dead_letters")
        assert found.sum("pgflow_exporter_failures_total") == 3
        said = [record.message for record in caplog.records if record.name == "pgflow.observe"]
        assert len(said) == 3 and "permission denied" in said[0]
    finally:
        exporter.close()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


@pytest.mark.parametrize("payloads", [False, True])
async def test_the_rights_of_a_reader_are_enough(dsn: str, database: Connection, payloads: bool) -> None:
    """Dead letters alone need more: why they do not fit may quote them."""
    role = f"reads_{os.getpid()}"
    database.execute(f"CREATE ROLE {role} LOGIN".encode())
    try:
        options = ["--reader", role, "--apply", *(["--payloads"] if payloads else [])]
        said = CliRunner().invoke(main, ["db", "roles", "--dsn", dsn, *options])
        assert said.exit_code == 0, said.output
        exporter = Exporter(make_conninfo(dsn, user=role))
        exporter.check()
        found = read(exporter)
        exporter.close()
        missing = {one.labels["group"] for one in found.all("pgflow_exporter_missing") if one.value}
        assert found.sum("pgflow_up") == 1 and missing == (set() if payloads else {"letters"})
    finally:
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_through_a_pooler(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays in the sessions that it shares: neither a setting nor that they only read."""
    with pooler(dsn, sessions=1) as shared:
        exporter = Exporter(shared.dsn)
        exporter.check()
        for _ in range(2):
            found = again(exporter, monkeypatch)
            assert found.sum("pgflow_up") == 1 and found.sum("pgflow_exporter_missing") == 0
        with psycopg.connect(shared.dsn, autocommit=True, prepare_threshold=None) as other:
            settings = "SELECT current_setting('transaction_read_only'), current_setting('statement_timeout')"
            assert other.execute(settings).fetchone() == ("off", "0")
        exporter.close()


async def test_a_table_that_is_locked_delays_nobody_for_long(
    dsn: str, exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgflow.database_metrics.STATEMENT", 0.2)
    with psycopg.connect(dsn) as other:
        other.execute("LOCK TABLE pgflow.signals")
        found = again(exporter, monkeypatch)
    missing = {one.labels["group"] for one in found.all("pgflow_exporter_missing") if one.value}
    assert missing == {"signals", "letters", "sizes"} and found.sum("pgflow_up") == 1
    assert again(exporter, monkeypatch).sum("pgflow_exporter_missing") == 0


def command(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "cli.py", "exporter", *options],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PGFLOW_")},
    )


def refused(*options: str) -> str:
    """What the command says when it ends at once; executed in this process, whose logging stays as it is."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        found = CliRunner().invoke(main, ["exporter", *options])
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    assert found.exit_code == 1 and isinstance(found.exception, SystemExit), found.output
    return found.output


async def test_the_command(dsn: str) -> None:
    port = free_port()
    with command("--dsn", dsn, "--port", str(port), "--host", "127.0.0.1") as process:
        try:

            async def ready() -> bool:
                assert process.poll() is None
                return await status(port, "/readyz") == 200

            await until(ready, "the exporter")
            assert await get(port, "/livez") == (200, "ok\n")
            assert (await scrape(port)).sum("pgflow_up") == 1
            second = refused("--dsn", dsn, "--port", str(port))
            assert f"port {port} at 0.0.0.0 cannot be opened" in second and "PGFLOW_EXPORTER_PORT" in second
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
        finally:
            process.kill()


def test_a_database_without_the_schema(dsn: str) -> None:
    assert "pgflow db upgrade --schema elsewhere" in refused("--dsn", dsn, "--schema", "elsewhere")


async def test_a_server_that_is_not_there_yet() -> None:
    """The command stays, and says so where it is asked."""
    port = free_port()
    nobody = f"postgresql://postgres@127.0.0.1:{free_port()}/x"
    with command("--dsn", nobody, "--port", str(port)) as process:
        try:

            async def there() -> bool:
                assert process.poll() is None
                return await status(port, "/livez") == 200

            await until(there, "the port")
            assert (await scrape(port)).sum("pgflow_up") == 0
            assert await status(port, "/readyz") == 503
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait() == 0


def test_every_metric_of_the_exporter_is_documented(exporter: Exporter) -> None:
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    section = text[text.index("## Metrics of the database") :]
    rows = dict(re.findall(r"^\| `(pgflow_\w+)` \|([^|]*)\|", section, re.MULTILINE))
    assert {name: re.findall(r"`(\w+)`", labels) for name, labels in rows.items()} == {
        family.name: list(family.labels) for family in exporter.report().families
    }
