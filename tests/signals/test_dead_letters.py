"""Signals that do not fit: set aside and reported, never in the way, delivered again or dropped by people."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from click.testing import CliRunner

import pgflow
from pgflow import faults
from pgflow.cli import main
from pgflow.decorators import signal as declare
from tests.waiting import status, until


@pgflow.signal
@dataclass
class Deposit:
    cents: int

    def __post_init__(self) -> None:
        if self.cents == 13:
            raise SystemExit("thirteen")


@pgflow.signal
@dataclass
class Close:
    pass


@pgflow.activity
async def note(ctx: pgflow.ActivityContext, cents: int) -> int:
    return cents


@pgflow.workflow
async def account(ctx: pgflow.WorkflowContext) -> list[int]:
    """Every deposit until it is closed."""

    async def turn(
        ctx: pgflow.WorkflowContext, seen: list[int]
    ) -> pgflow.Continue[list[int]] | pgflow.Break[list[int]]:
        match await ctx.listen(Deposit, Close):
            case Deposit(cents):
                return pgflow.Continue([*seen, await ctx.activity(note, cents)])
        return pgflow.Break(seen)

    return await ctx.loop(turn, [], commit_interval=2)


@pgflow.workflow
async def handfuls(ctx: pgflow.WorkflowContext, wanted: int) -> list[list[int]]:
    found: list[list[int]] = []
    while sum(map(len, found)) < wanted:
        found.append([deposit.cents for deposit in await ctx.listen_many(Deposit, limit=3)])
    return found


@pgflow.workflow
async def patient(ctx: pgflow.WorkflowContext, seconds: float) -> int | None:
    deposit = await ctx.listen(Deposit, timeout=seconds)
    return None if deposit is None else deposit.cents


@pgflow.workflow
async def leaves(ctx: pgflow.WorkflowContext) -> str:
    """Listens, and does not wait for it."""
    listening = asyncio.ensure_future(ctx.listen(Deposit))
    await asyncio.sleep(0)
    return "left" if not listening.done() else "heard"


WORKFLOWS: list[pgflow.Workflow[Any, Any]] = [account, handfuls, patient, leaves]

BAD = ('{"amount": 7}', '{"cents": "many"}', '{"cents": 13}', '{"cents": 1.5}', "{}")


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def send(dsn: str, to: UUID, body: str, name: str = "deposit") -> UUID:
    """By SQL, which checks no fields."""
    ((id,),) = ask(dsn, "SELECT pgflow.signal(%s::uuid, %s, %s::json)", to, name, body)
    assert isinstance(id, UUID)
    return id


async def dead(client: pgflow.Client, count: int, **filter: Any) -> list[pgflow.DeadSignal]:
    """Those that are set aside, once they are so many."""
    found: list[pgflow.DeadSignal] = []

    async def there() -> bool:
        found[:] = await client.dead_signals(**filter)
        return len(found) == count

    await until(there)
    return found


@pytest.mark.parametrize("cached", [1000, 0])
async def test_the_listen_waits_on(dsn: str, cached: int, caplog: pytest.LogCaptureFixture) -> None:
    """What fits is taken in its order, whatever came in between; what does not is told once each."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(account)
        ids = []
        for number, bad in enumerate(BAD):
            await client.signal(Deposit(number), to=handle.id)
            ids.append(send(dsn, handle.id, bad))
        found = await dead(client, len(BAD))
        await client.signal(Close(), to=handle.id)
        assert await handle.output(timeout=30) == list(range(len(BAD)))
    assert [signal.id for signal in found] == sorted(ids)
    by_id = {signal.id: signal for signal in found}
    for id, bad in zip(ids, BAD, strict=True):
        signal = by_id[id]
        assert (signal.workflow_id, signal.workflow_name, signal.name, signal.body) == (
            handle.id,
            "account",
            "deposit",
            json.loads(bad),
        )
        assert signal.set_aside_at >= signal.created_at and signal.sender_id is None
    assert (
        by_id[ids[0]].problem.startswith('signal "deposit" taken at {1, ')
        and "Field required (at cents)" in by_id[ids[0]].problem
    )
    assert "SystemExit: thirteen" in by_id[ids[2]].problem
    told = [record.getMessage() for record in caplog.records if "was set aside" in record.getMessage()]
    assert sorted(id for id in ids for line in told if str(id) in line) == sorted(ids) and len(told) == len(ids)
    assert 'the signal "deposit"' in told[0] and "client.redeliver" in told[0]
    assert ask(dsn, "SELECT count(*) FROM pgflow.signals WHERE problem IS NOT NULL AND consumed_at IS NOT NULL") == [
        (0,)
    ]


async def test_by_the_handful(dsn: str) -> None:
    """A limit counts what fits."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(handfuls, 5)
        for number in range(5):
            send(dsn, handle.id, BAD[0])
            await client.signal(Deposit(number), to=handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=30) == [[0, 1, 2], [3, 4]]
            await dead(client, 4 + 1, workflow_id=handle.id)


async def test_what_came_last_before_the_end(dsn: str) -> None:
    """Set aside in the very write that ends the workflow: it is a dead letter, not merely left over."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(patient, 60)
        id = send(dsn, handle.id, BAD[0])
        await client.signal(Deposit(5), to=handle.id)
        late = await client.signal(Deposit(6), to=handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=30) == 5
        assert [signal.id for signal in await dead(client, 1)] == [id]
        assert ask(dsn, "SELECT id FROM pgflow.signals WHERE dropped_at IS NOT NULL AND problem IS NULL") == [(late,)]
        with pytest.raises(pgflow.PgflowError, match="redeliver: the workflow .* is completed, nothing was delivered"):
            await client.redeliver(id)
        await client.drop(id)
        assert await client.dead_signals() == []


async def test_set_aside_by_the_write_that_ends_it(dsn: str) -> None:
    """One write says both that it does not fit and that the workflow has ended, with other signals left over."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(leaves)
        id = send(dsn, handle.id, BAD[0])
        left = send(dsn, handle.id, "{}", "close")
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=30) == "left"
        assert [signal.id for signal in await dead(client, 1)] == [id]
        assert ask(dsn, "SELECT id FROM pgflow.signals WHERE dropped_at IS NOT NULL AND problem IS NULL") == [(left,)]


async def test_a_timeout_passes_all_the_same(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(patient, 0.2)
        send(dsn, handle.id, BAD[0])
        assert await handle.output(timeout=30) is None


async def test_a_crash_before_it_is_recorded(dsn: str) -> None:
    """Whoever takes the workflow over meets it again, and sets it aside again: once in the end, in the same order."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(account)
        for number in range(3):
            send(dsn, handle.id, BAD[number % 2])
            await client.signal(Deposit(number), to=handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS, cached=0):
            await dead(client, 3)
            # Another has it from here on: what this worker still writes is refused.
            ask(dsn, "UPDATE pgflow.runs SET epoch = epoch + 1, status = 'pending', worker_id = NULL, wake_at = now()")
            send(dsn, handle.id, BAD[0])
            await client.signal(Close(), to=handle.id)
            assert await handle.output(timeout=30) == [0, 1, 2]
            await dead(client, 4)


async def test_whoever_lost_the_lease_sets_nothing_aside(dsn: str) -> None:
    """Fenced like every write: the marks of a worker that lost the run are not there."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(account)
        send(dsn, handle.id, BAD[0])
        held = asyncio.Event()

        async def hold() -> None:
            if not held.is_set():
                held.set()
                ask(
                    dsn,
                    "UPDATE pgflow.runs SET epoch = epoch + 1, status = 'paused', worker_id = NULL WHERE status = "
                    "'running'",
                )

        with faults.install({"journal.before": hold}):
            async with pgflow.Worker(dsn, workflows=WORKFLOWS):
                await asyncio.wait_for(held.wait(), 20)
                await status(client, handle, "paused")
        assert await client.dead_signals() == []
        await client.resume(handle.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await dead(client, 1)


@pytest.mark.parametrize("cached", [1000, 0])
async def test_delivered_anew(dsn: str, cached: int) -> None:
    """At the end of the mailbox, under its id, to a workflow that has moved on: as it is, as an object, as fields."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS, cached=cached):
        handle = await client.dispatch(account)
        first, second, third = (send(dsn, handle.id, BAD[0]) for _ in range(3))
        await client.signal(Deposit(1), to=handle.id)
        await dead(client, 3)
        assert await client.redeliver(first, Deposit(2)) == first
        assert await client.redeliver(str(second), {"cents": 3}) == second
        await client.redeliver(third)
        (again,) = await dead(client, 1)
        assert again.id == third and again.body == {"amount": 7}
        with pytest.raises(
            pgflow.PgflowError, match='redeliver: the signal "deposit" .* is not set aside: it (was taken|waits)'
        ):
            await client.redeliver(first)
        await client.signal(Deposit(4), to=handle.id)
        await client.signal(Close(), to=handle.id)
        assert await handle.output(timeout=30) == [1, 2, 3, 4]
        numbers = ask(dsn, "SELECT number FROM pgflow.signals WHERE consumed_at IS NOT NULL ORDER BY arrival")
        assert [number for (number,) in numbers] == sorted({number for (number,) in numbers})


async def test_code_that_has_learned_to_read_it(dsn: str) -> None:
    """The body as it is, for other code."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(patient, 3600)
        id = send(dsn, handle.id, '{"amount": 7}')
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await dead(client, 1)

        @declare(name="deposit")
        @dataclass
        class Lenient:
            amount: int

        @pgflow.workflow(name="patient")
        async def mended(ctx: pgflow.WorkflowContext, seconds: float) -> int | None:
            deposit = await ctx.listen(Lenient, timeout=seconds)
            return None if deposit is None else deposit.amount

        async with pgflow.Worker(dsn, workflows=[mended]):
            await client.redeliver(id)
            assert await handle.output(timeout=30) == 7


async def test_what_is_refused(dsn: str) -> None:
    """And changes nothing."""
    async with pgflow.Client(dsn, payload_limit=100) as client:
        handle = await client.dispatch(account)
        id = await client.signal(Deposit(1), to=handle.id)
        assert id is not None
        for call, said in (
            (client.redeliver(uuid4()), "redeliver: there is no signal"),
            (client.drop(uuid4()), "drop_signal: there is no signal"),
            (client.redeliver(id), "is not set aside: it waits to be delivered"),
            (client.drop(id), "is not set aside: it waits to be delivered"),
        ):
            with pytest.raises(pgflow.PgflowError, match=said):
                await call
        bad = send(dsn, handle.id, BAD[0])
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            await dead(client, 1)
        with pytest.raises(pgflow.SerializationError, match="expected at most 100"):
            await client.redeliver(bad, {"cents": "x" * 200})
        with pytest.raises(TypeError, match="int"):
            await client.redeliver(bad, 5)
        for given in ("no id", 7):
            with pytest.raises(ValueError, match="expected a UUID"):
                await client.redeliver(given)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="limit=-1"):
            await client.dead_signals(limit=-1)
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="expected a JSON object"):
            ask(dsn, "SELECT pgflow.redeliver(%s, '[]')", bad)
        assert len(await client.dead_signals()) == 1
        assert len(await client.dead_signals(name="else")) == 0


async def test_page_by_page(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        one, other = await client.dispatch(account), await client.dispatch(account)
        for _ in range(5):
            send(dsn, one.id, BAD[0])
        send(dsn, other.id, BAD[0])
        await dead(client, 6)
        found: list[pgflow.DeadSignal] = []
        while page := await client.dead_signals(workflow_id=one.id, limit=2, after=found[-1].id if found else None):
            found += page
        assert [signal.id for signal in found] == sorted({signal.id for signal in found}) and len(found) == 5


def test_by_the_sync_client_and_the_command(dsn: str) -> None:
    def flow(*arguments: Any, code: int = 0) -> str:
        given = {"PGFLOW_DATABASE_URL": dsn, "PGFLOW_SCHEMA": None}
        result = CliRunner().invoke(main, ["signal", *map(str, arguments)], env=given, prog_name="pgflow")
        assert result.exit_code == code, result.output
        return result.output

    async def prepare() -> tuple[UUID, list[UUID]]:
        async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(account)
            ids = [send(dsn, handle.id, '{"amount": "[red]"}') for _ in range(4)]
            await dead(client, 4)
            return handle.id, ids

    receiver, ids = asyncio.run(prepare())
    shown = flow("list", "--dead")
    assert all(str(id) in shown for id in ids) and "account" in shown
    listed = json.loads(flow("list", "--dead", "--json", "--limit", 4))
    assert [one["id"] for one in listed] == sorted(map(str, ids))
    assert listed[0]["body"] == {"amount": "[red]"} and "Field required" in listed[0]["problem"]
    assert f"go on with --after {sorted(ids)[1]}" in flow("list", "--dead", "--limit", 2)
    assert str(sorted(ids)[0]) not in flow("list", "--dead", "--after", sorted(ids)[0], "--workflow", receiver)
    flow("list", code=2)
    assert "on its way" in flow("redeliver", ids[0], '{"cents": 5}')
    assert "is not JSON" in flow("redeliver", ids[1], "{", code=2)
    assert "expected a JSON object" in flow("redeliver", ids[1], "[]", code=2)
    assert "it is dropped" in flow("drop", ids[1])
    assert "was dropped" in flow("drop", ids[1], code=1)
    with pgflow.SyncClient(dsn) as client:
        assert [signal.id for signal in client.dead_signals(receiver)] == sorted(ids[2:])
        client.drop(ids[2])
        client.redeliver(ids[3], Deposit(6))
        assert client.dead_signals() == []
        client.signal(Close(), to=receiver)

        async def finish() -> None:
            async with pgflow.Worker(dsn, workflows=WORKFLOWS):
                while (await asyncio.to_thread(client.get, receiver)).status != "completed":
                    await asyncio.sleep(0.01)

        asyncio.run(finish())
        assert client.output(receiver) == [5, 6]


async def test_an_id_of_the_senders(dsn: str) -> None:
    """Sent again it is sent once, to whom it went first; also when all is over. Another signal's id is refused."""
    async with pgflow.Client(dsn) as client:
        one, other = [await client.dispatch(account, tags={"n": 1}) for _ in range(2)]
        id = uuid4()
        for _ in range(2):
            assert await client.signal(Deposit(7), to=one.id, id=id) == id
            with pgflow.SyncClient(dsn) as sync:
                assert await asyncio.to_thread(sync.signal, Deposit(7), to=one.id, id=str(id)) == id
        assert await client.signal(Deposit(7), workflow=account, tags={"n": 1}, id=id) == id
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            assert await client.signal(Deposit(7), to=one.id, id=id, connection=connection) == id
        with pytest.raises(
            ValueError, match=f'belongs to a signal "deposit" to the workflow {one.id}.*Nothing was sent'
        ):
            await client.signal(Deposit(7), to=other.id, id=id)
        with pytest.raises(ValueError, match='belongs to a signal "deposit"'):
            await client.signal(Close(), to=one.id, id=id)
        with pytest.raises(ValueError, match="expected a UUID"):
            await client.signal(Close(), to=one.id, id="mine")
        assert ask(dsn, "SELECT id, workflow_id FROM pgflow.signals") == [(id, one.id)]
        await client.signal(Close(), to=one.id)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await one.output(timeout=30) == [7]
        assert await client.signal(Deposit(7), to=one.id, id=id) == id
