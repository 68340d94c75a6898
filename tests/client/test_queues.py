"""What waits in queues, by the client and by the command."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from click.testing import CliRunner

import pgflow
from pgflow.cli import main
from pgflow.store.queries import queueing

LATER = datetime.now(UTC) + timedelta(days=1)


@pgflow.workflow
async def done(ctx: pgflow.WorkflowContext) -> None:
    pass


def command(dsn: str, *options: str) -> str:
    environment = {"PGFLOW_DATABASE_URL": dsn, "PGFLOW_SCHEMA": None}
    result = CliRunner().invoke(main, ["queue", "list", *options], env=environment, prog_name="pgflow")
    assert result.exit_code == 0, result.output
    return result.stdout


def execute(dsn: str, query: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as sql:
        sql.execute(query.encode())


async def test_what_waits(dsn: str) -> None:
    """By name and over all priorities; what runs, is paused or waits for ever is not due, nor next."""
    async with pgflow.Client(dsn) as client:
        assert await client.queues.list() == []
        for priority in (0, 5, 9):
            await client.dispatch("checkout", queue="mail", priority=priority)
        await client.dispatch("remind", queue="mail", run_at=LATER)
        await client.dispatch("remind", queue="mail", run_at=LATER + timedelta(hours=1))
        await client.dispatch("report", queue="nightly", run_at=LATER)
        paused = await client.dispatch("checkout", queue="other")
        await paused.pause()
        execute(dsn, "UPDATE pgflow.runs SET name = name || chr(31) WHERE name = 'checkout' AND priority = 9")
        mail, nightly = await client.queues.list()
        assert (mail.name, mail.workers, mail.due, mail.more, mail.next_at) == ("mail", 0, 3, False, LATER)
        assert [(work.workflow, work.due, work.next_at) for work in mail.work] == [
            ("checkout", 3, None),
            ("remind", 0, LATER),
        ]
        assert mail.oldest_due_at is not None and mail.oldest_due_at == mail.work[0].oldest_due_at
        assert (nightly.name, nightly.due, nightly.oldest_due_at, nightly.next_at) == ("nightly", 0, None, LATER)
        async with pgflow.Worker(dsn, workflows=[done], queues=["mail", "idle"]):
            served = {queue.name: queue.workers for queue in await client.queues.list()}
        assert served == {"idle": 1, "mail": 1, "nightly": 0}


async def test_counting_ends(dsn: str, monkeypatch: Any) -> None:
    """However much waits, as much is counted as the bound says, and it is said that there is more."""
    monkeypatch.setattr(queueing, "COUNTED", 10)
    async with pgflow.Client(dsn) as client:
        await client.dispatch_many("checkout", [{}] * 30)
        (found,) = await client.queues.list()
    assert (found.due, found.more) == (10, True)


async def test_the_command(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        await client.dispatch("checkout", queue="mail")
        await client.dispatch("remind", queue="mail", run_at=LATER)
    printed = await asyncio.to_thread(command, dsn)
    lines = [line.split() for line in printed.splitlines()]
    assert lines[1][:3] == ["mail", "0", "1"] and lines[2][:2] == ["checkout", "1"]
    assert lines[3] == ["remind", "0", *LATER.strftime("%Y-%m-%d %H:%M:%S").split()]
    (found,) = json.loads(await asyncio.to_thread(command, dsn, "--json"))
    assert found["name"] == "mail" and [work["workflow"] for work in found["work"]] == ["checkout", "remind"]
