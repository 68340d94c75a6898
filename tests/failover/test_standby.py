"""Clients on a hot standby: they read, and say so; what would write is refused by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

import pgflow
from pgflow.database_metrics import Exporter
from tests.failover.servers import Place, Server, place
from tests.waiting import until


@pgflow.workflow
async def add(ctx: pgflow.WorkflowContext, a: int, b: int) -> int:
    await ctx.sleep(0.01)
    return a + b


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    with place() as made:
        assert isinstance(made, Place)
        with made.server("primary") as primary, made.standby(primary) as standby:
            yield primary, standby


def test_the_exporter_on_a_standby(servers: tuple[Server, Server]) -> None:
    """Everything that a standby knows; what it would know wrongly is left out."""
    primary, standby = servers
    exporters = [Exporter(primary.dsn), Exporter(standby.dsn)]
    try:
        reports = [exporter.report() for exporter in exporters]
    finally:
        for exporter in exporters:
            exporter.close()
    assert [report.unready for report in reports] == [None, None]
    there, here = ({family.name: family for family in report.families} for report in reports)
    assert not any(sample.values[0] for sample in here["pgflow_exporter_missing"].samples)
    assert there.keys() - here.keys() == {"pgflow_table_rows", "pgflow_table_dead_rows"}
    assert here["pgflow_schema_version"].samples == there["pgflow_schema_version"].samples
    assert not here["pgflow_vacuum_held_back_seconds"].samples[0].values[0]


def test_the_doctor_on_a_standby(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    """All checks are made; what a standby holds back is found at the primary."""
    primary, standby = servers
    with pgflow.SyncClient(primary.dsn) as client, pgflow.SyncClient(standby.dsn) as reader:
        here = client.doctor()
        assert (here.findings, reader.doctor()) == ([], here)


async def test_a_client_on_a_standby_reads(servers: tuple[Server, Server], caplog: pytest.LogCaptureFixture) -> None:
    primary, standby = servers
    caplog.set_level(logging.INFO)
    async with pgflow.Client(primary.dsn) as client, pgflow.Client(standby.dsn) as reader:
        waiting = await client.dispatch(add, 1, 2)

        async def there() -> bool:
            try:
                return bool(await reader.get(waiting.id))
            except pgflow.WorkflowNotFound:
                return False

        await until(there)
        assert (await reader.get(waiting.id)).status == "pending"
        output = asyncio.create_task(reader.output(waiting.id, timeout=60))
        async with pgflow.Worker(primary.dsn, workflows=[add]):
            assert await output == 3
        assert [info.id for info in await reader.list("add")] == [waiting.id]
        assert [event.kind for event in await reader.history(waiting.id)] == ["sleep"]
        assert await reader.dead_signals() == []
        assert '"add"' in await reader.export(waiting.id)

        def read() -> int:
            with pgflow.SyncClient(standby.dsn) as sync:
                assert len(sync.list("add")) == 1
                found = sync.output(waiting.id, timeout=60)
                assert isinstance(found, int)
                return found

        assert await asyncio.to_thread(read) == 3
    said = [record.getMessage() for record in caplog.records if "is on a standby" in record.getMessage()]
    assert len(said) == 2, "each client says it once"


async def test_a_client_on_a_standby_writes_nothing(servers: tuple[Server, Server]) -> None:
    """Each refusal names the server, and what to do."""
    primary, standby = servers
    refused = "can only be read: it is a standby.*Nothing was written.*target_session_attrs=read-write"
    async with pgflow.Client(primary.dsn) as client, pgflow.Client(standby.dsn) as reader:
        handle = await client.dispatch(add, 1, 2)

        async def there() -> bool:
            return (
                len(await reader.list("add", limit=1)) == 1 and (await reader.list("add", limit=1))[0].id == handle.id
            )

        await until(there)
        for write in (
            lambda: reader.dispatch(add, 1, 2),
            lambda: reader.dispatch_many(add, [{"a": 1, "b": 2}]),
            lambda: reader.cancel(handle.id),
            lambda: reader.pause(handle.id),
            lambda: reader.fork(handle.id, before="{1}"),
        ):
            with pytest.raises(
                (pgflow.ReadOnlyServer, pgflow.WorkflowNotFound), match=f"{refused}|no step at"
            ) as caught:
                await write()
            if caught.type is pgflow.ReadOnlyServer:
                assert str(standby.home) in str(caught.value)

        def start() -> None:
            with pgflow.SyncClient(standby.dsn) as sync, pytest.raises(pgflow.ReadOnlyServer, match=refused):
                sync.dispatch(add, 1, 2)

        await asyncio.to_thread(start)
        assert (await reader.get(handle.id)).status == "pending", "and it goes on reading"
