"""Each alert fires when what it is for is done to a database or a worker, and is quiet before; the dashboard names only
what there is.

Prometheus itself is not there: `promql.py` evaluates the expressions. About 10 seconds.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow import faults
from pgflow.database_metrics import Exporter
from pgflow.observe.exposition import exposition
from pgflow.observe.process_reports import Household, ProcessReport
from pgflow.observe.worker_metrics import WorkerMetrics, state
from pgflow.store.queries import exporting
from tests.observe.promql import Moment, Vector, evaluate, metrics_of
from tests.observe.scraping import Scrape
from tests.waiting import until

ROOT = Path(__file__).parents[2]
GROUPS = yaml.safe_load((ROOT / "deploy" / "prometheus" / "pgflow.rules.yml").read_text(encoding="utf-8"))["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
PANELS = json.loads((ROOT / "deploy" / "grafana" / "pgflow.json").read_text(encoding="utf-8"))["panels"]
DASHBOARD = [target["expr"] for panel in PANELS for target in panel.get("targets", [])]

Connection = psycopg.Connection[tuple[object, ...]]
Plant = Callable[[Connection, ExitStack], object]


def scraped(report: ProcessReport) -> Scrape:
    body, _ = exposition(report.families, "text/plain")
    return Scrape.of(body.decode())


def fires(
    alert: str, before: Scrape, after: Scrape, scale: tuple[str, str] = ("", ""), *, within: float = 60
) -> Vector:
    """What the alert fires for when one scrape follows the other; `scale` replaces a threshold by a smaller one."""
    expression = RULES[alert]["expr"]
    assert scale[0] in expression
    return evaluate(expression.replace(*scale), [Moment(0.0, before), Moment(within, after)])


def do(*statements: str) -> Plant:
    def plant(database: Connection, planted: ExitStack) -> None:
        for statement in statements:
            database.execute(statement.encode())

    return plant


def unreachable(database: Connection, planted: ExitStack) -> None:
    name = database.info.dbname
    elsewhere = planted.enter_context(
        psycopg.connect(
            make_conninfo(database.info.dsn, password=database.info.password, dbname="template1"), autocommit=True
        )
    )
    elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
    elsewhere.execute(
        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgflow exporter' "
        b"AND datname = %s",
        [name],
    )
    planted.callback(elsewhere.execute, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())


def transaction(database: Connection, planted: ExitStack) -> None:
    other = planted.enter_context(psycopg.connect(database.info.dsn, password=database.info.password))
    other.execute("CREATE TABLE held (id int)")


DUE = "INSERT INTO runs (workflow_id, name, status, wake_at) VALUES (gen_random_uuid(), 'order', 'pending', now() - {})"
SIGNAL = (
    "INSERT INTO signals (id, workflow_id, name, body, {}) "
    "VALUES (gen_random_uuid(), gen_random_uuid(), 'Paid', '{{}}', {})"
)
WORKER = "INSERT INTO workers (host, pid, version, queues, expires_at) VALUES ('here', 1, '0', '{default}', now() + %s)"
DEAD = (
    "INSERT INTO runs (workflow_id, name, status) "
    "SELECT gen_random_uuid(), 'a', 'failed' FROM generate_series(1, 2000)",
    "DELETE FROM runs",
    "SELECT pg_stat_force_next_flush()",
)

OF_THE_DATABASE: Mapping[str, tuple[Plant, tuple[str, str]]] = {
    "PgflowDatabaseUnreachable": (unreachable, ("", "")),
    "PgflowMetricsMissing": (do("ALTER TABLE signals RENAME TO elsewhere"), ("", "")),
    "PgflowNoWorkers": (do(DUE.format("interval '2 minutes'")), ("", "")),
    "PgflowWorkWaits": (do(WORKER % "interval '1 hour'", DUE.format("interval '6 minutes'")), ("", "")),
    "PgflowWorkersNotBuried": (do(WORKER % "interval '-1 second'"), ("", "")),
    "PgflowDeadLetters": (do(SIGNAL.format("dropped_at, problem", "now(), 'unreadable'")), ("", "")),
    "PgflowSignalsWait": (do(SIGNAL.format("created_at", "now() - interval '5 minutes'")), ("", "")),
    "PgflowSuspectedWorkflows": (
        do(
            "INSERT INTO runs (workflow_id, name, status, suspicions) VALUES (gen_random_uuid(), 'a', 'pending', '{1}')"
        ),
        ("", ""),
    ),
    "PgflowUpkeepOverdue": (
        do("UPDATE chores SET held_until = NULL, next_at = now() - interval '2 hours' WHERE name = 'audit'"),
        ("", ""),
    ),
    "PgflowVacuumHeldBack": (transaction, ("3600", "0")),
    "PgflowVacuumHeldBackFar": (transaction, ("20000000", "0")),
    "PgflowTableBloated": (do(*DEAD), ("1000000", "1000")),
}
"""What each alert is for, and where it takes too long in a test, the threshold and a smaller one."""

SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1.1); RETURN NULL; END';
CREATE TRIGGER slow AFTER INSERT ON pgflow.events EXECUTE FUNCTION slow()
"""

OF_WORKERS = {
    "PgflowWorkflowsFail",
    "PgflowAttemptsFail",
    "PgflowLeaseLost",
    "PgflowEventLoopBlocked",
    "PgflowCommitsSlow",
    "PgflowLoopsConflict",
}
OF_PROCESSES = {"PgflowProcessDown", "PgflowProcessRestarts"}


def test_every_alert_is_tested_and_documented() -> None:
    assert {*OF_THE_DATABASE, *OF_WORKERS, *OF_PROCESSES} == RULES.keys()
    text = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(Pgflow\w+)` \|", text, re.MULTILINE) == list(RULES)
    for rule in RULES.values():
        assert rule["annotations"].keys() == {"summary", "runbook"} and all(rule["annotations"].values())
        assert rule["labels"]["severity"] in ("critical", "warning")


@pytest.mark.parametrize("alert", OF_THE_DATABASE)
def test_alerts_of_the_database(dsn: str, alert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgflow.database_metrics.GROUPS", [group._replace(keep=0.0) for group in exporting.GROUPS])
    plant, scale = OF_THE_DATABASE[alert]
    exporter = Exporter(dsn)
    with ExitStack() as planted:
        planted.callback(exporter.close)
        database = planted.enter_context(psycopg.connect(dsn, autocommit=True, options="-c search_path=pgflow"))
        before = scraped(exporter.report())
        assert not fires(alert, before, before, scale)
        plant(database, planted)
        assert fires(alert, before, scraped(exporter.report()), scale)


def test_a_queue_with_a_worker_has_one(dsn: str) -> None:
    exporter = Exporter(dsn)
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=pgflow") as database:
        database.execute(DUE.format("interval '2 minutes'").encode())
        database.execute((WORKER % "interval '1 hour'").encode())
    found = scraped(exporter.report())
    exporter.close()
    assert found.sum("pgflow_queue_due") == 1 and not fires("PgflowNoWorkers", found, found)


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
async def broken(ctx: pgflow.ActivityContext) -> None:
    raise ConnectionError("no")


@pgflow.activity
async def fine(ctx: pgflow.ActivityContext) -> None:
    pass


@pgflow.workflow
async def failing(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(broken)


@pgflow.workflow
async def working(ctx: pgflow.WorkflowContext) -> None:
    await ctx.activity(fine)


async def turn(ctx: pgflow.WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[int]:
    await ctx.activity(fine)
    return pgflow.Continue(state + 1) if state < 4 else pgflow.Break(state)


@pgflow.workflow
async def looping(ctx: pgflow.WorkflowContext) -> int:
    return await ctx.loop(turn, 0, commit_interval=2)


async def test_alerts_of_workers(dsn: str) -> None:
    blocked_by: list[pgflow.Worker] = []

    @pgflow.activity(timeout=timedelta(minutes=5))
    async def careless(ctx: pgflow.ActivityContext) -> None:
        watchdog = blocked_by[0].observation.watchdog
        assert watchdog is not None
        while not watchdog.blocked:
            time.sleep(0.01)

    @pgflow.workflow
    async def blocking(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(careless)

    worker = pgflow.Worker(
        dsn,
        workflows=[failing, working, looping, blocking],
        metrics_port=0,
        metrics_host="127.0.0.1",
        lease=60,
    )
    blocked_by.append(worker)
    async with pgflow.Client(dsn) as client, worker:

        async def before_and_after(alert: str) -> AsyncIterator[None]:
            before = scraped(worker.observation.report())
            assert not fires(alert, before, before)
            yield
            assert fires(alert, before, scraped(worker.observation.report()), within=1)

        planting = asynccontextmanager(before_and_after)

        async def fail() -> None:
            with pytest.raises(pgflow.WorkflowFailed):
                await (await client.dispatch(failing)).output(60)

        async with planting("PgflowWorkflowsFail"):
            await fail()
        async with planting("PgflowAttemptsFail"):
            await fail()
        async with planting("PgflowEventLoopBlocked"):
            await (await client.dispatch(blocking)).output(60)
        async with planting("PgflowCommitsSlow"):
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute(SLOW)
                await (await client.dispatch(working)).output(60)
                other.execute("DROP TRIGGER slow ON pgflow.events")
        async with planting("PgflowLoopsConflict"):
            touched: list[None] = []

            def touch() -> None:
                touched.append(None)
                if len(touched) <= 3:
                    with psycopg.connect(dsn, autocommit=True) as other:
                        other.execute("UPDATE pgflow.runs SET mailbox = mailbox + 1")

            with faults.install({"loops.after_trim": touch}):
                await (await client.dispatch(looping)).output(60)
        async with planting("PgflowLeaseLost"):
            first = worker.id
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute("DELETE FROM pgflow.workers")
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name LIKE 'pgflow %'"
                )
            await until(lambda: worker.id not in (None, first), "another registration")


def test_alerts_of_processes() -> None:
    household = Household(["0"])
    quiet = scraped(ProcessReport(None, None, household.report().families))
    ends = []
    for _ in range(4):
        household.remove("0")
        ours, theirs = socket.socketpair()
        ends.append(theirs)
        household.add("0", ours)
    found = scraped(household.report())
    household.remove("0")
    for end in ends:
        end.close()
    assert fires("PgflowProcessDown", quiet, found) and fires("PgflowProcessRestarts", quiet, found)


def test_the_dashboard_and_the_alerts_name_what_there_is(dsn: str) -> None:
    exporter = Exporter(dsn)
    worker = ProcessReport(None, None, [*WorkerMetrics(["order"]).read(), *state(0, 0, 0, 0, 0, 0)])
    reports = [exporter.report(), worker, Household(["0"]).report()]
    exporter.close()
    found = Scrape(one for report in reports for one in scraped(report).series)
    families = {family.name for report in reports for family in report.families}
    known = {one.name for one in found.series} | families
    for expression in [*DASHBOARD, *(rule["expr"] for rule in RULES.values())]:
        assert metrics_of(expression) <= known, expression
        evaluate(expression, [Moment(0.0, found), Moment(60.0, found)])
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for text in DASHBOARD for name in metrics_of(text)}
    assert families - shown == {
        "pgflow_exporter_failures_total",
        "pgflow_schema_version",
        "pgflow_table_rows",
        "pgflow_undelivered_oldest_seconds",
    }


def test_what_the_evaluator_does_not_know() -> None:
    for text in ("avg(pgflow_up)", "pgflow_up offset 5m", "pgflow_up >", "up", "sum(pgflow_up", 'pgflow_up{a=~"b"}'):
        with pytest.raises(ValueError):
            evaluate(text, [Moment(0.0, Scrape([]))])
