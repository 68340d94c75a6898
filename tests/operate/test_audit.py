"""Whatever an operator does leaves a row in the table `audit`, in the same transaction; nothing else does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow import faults
from pgflow.store.database.connections import Database
from pgflow.store.exchange import sweeping
from pgflow.store.exchange.sweeping import AUDIT_KEEP, Sweeper
from pgflow.store.schema import migrations
from tests import databases
from tests.waiting import status, until


@pgflow.signal
@dataclass
class Go:
    n: int = 0


@pgflow.workflow
async def child(ctx: pgflow.WorkflowContext) -> None:
    await ctx.listen(Go)


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext) -> None:
    handle = await ctx.dispatch(child)
    await handle.output()


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def rows(dsn: str) -> list[Any]:
    """What was written down, but for when and by which role."""
    return ask(dsn, "SELECT operation, workflow_id, actor, reason, subject FROM pgflow.audit ORDER BY id")


def count(dsn: str) -> int:
    return len(rows(dsn))


def new(dsn: str, how: str = "pending") -> UUID:
    """A workflow that stands somehow: pending, paused, failed with a step behind it, ended."""
    id: UUID
    ((id,),) = ask(dsn, "SELECT pgflow.dispatch('flow')")
    ask(dsn, "UPDATE pgflow.runs SET epoch = 1 WHERE workflow_id = %s", id)  # a worker has had it
    if how == "paused":
        ask(dsn, "UPDATE pgflow.runs SET status = 'paused' WHERE workflow_id = %s", id)
    elif how == "failed":
        ask(dsn, "UPDATE pgflow.runs SET status = 'failed', wake_at = NULL, reset = '{1}' WHERE workflow_id = %s", id)
        ask(dsn, "UPDATE pgflow.workflows SET status = 'failed', error = '{}', completed_at = now() WHERE id = %s", id)
        ask(
            dsn,
            "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, attempts, seq, completed_at) "
            "VALUES (%s, '1', 'activity', 'ask', 'failed', 5, 1, now())",
            id,
        )
    elif how == "completed":
        ask(dsn, "DELETE FROM pgflow.runs WHERE workflow_id = %s", id)
        ask(dsn, "UPDATE pgflow.workflows SET status = 'completed', completed_at = now() WHERE id = %s", id)
    return id


def dead(dsn: str, workflow_id: UUID) -> UUID:
    """A signal that was set aside."""
    id = uuid4()
    ask(
        dsn,
        "INSERT INTO pgflow.signals (id, workflow_id, name, body, number, dropped_at, problem) "
        "VALUES (%s, %s, 'go', '{}', 1, now(), 'unfit')",
        id,
        workflow_id,
    )
    return id


class Both:
    """One client, of either kind, called the same way."""

    def __init__(self, client: pgflow.Client | pgflow.SyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            found = getattr(self.client, name)(*args, **kwargs)
            return await found if inspect.isawaitable(found) else found

        return call


@pytest_asyncio.fixture(params=["asynchronous", "synchronous"])
async def kim(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Both]:
    """A client of somebody's."""
    if request.param == "synchronous":
        with pgflow.SyncClient(dsn, actor="kim") as client:
            yield Both(client)
    else:
        async with pgflow.Client(dsn, actor="kim") as other:
            yield Both(other)


async def test_each_operation_of_a_client(dsn: str, kim: Both) -> None:
    flow = new(dsn)
    assert await kim.pause(flow, reason="an incident") is True
    assert await kim.resume(flow, reason="it is over") is True
    assert await kim.cancel(flow, reason="ordered twice") is True
    failed = new(dsn, "failed")
    forked = (await kim.fork(failed, "{1}", queue="slow", reason="to look at it")).id
    await kim.retry(failed, reason="the bank is back")
    first, second = dead(dsn, flow), dead(dsn, flow)
    await kim.redeliver(first, {"n": 7}, reason="the field was renamed")
    await kim.drop(second, reason="a test's")
    found = await kim.audit()
    assert [(entry.operation, entry.workflow_id, entry.subject, entry.reason) for entry in reversed(found)] == [
        ("pause", flow, None, "an incident"),
        ("resume", flow, None, "it is over"),
        ("cancel", flow, None, "ordered twice"),
        ("fork", failed, None, "to look at it"),
        ("retry", failed, None, "the bank is back"),
        ("redeliver", flow, str(first), "the field was renamed"),
        ("drop", flow, str(second), "a test's"),
    ]
    ((user, now),) = ask(dsn, "SELECT current_user, now()")
    assert all((entry.actor, entry.role) == ("kim", user) for entry in found)
    assert all(now - timedelta(minutes=5) < entry.at <= now for entry in found)
    assert [entry.details for entry in reversed(found)] == [
        None,
        None,
        None,
        {"new_id": str(forked), "before": "{1}", "queue": "slow"},
        None,
        {"name": "go", "body_replaced": True},
        {"name": "go"},
    ]


async def test_nobody_says_who_or_why(dsn: str) -> None:
    """Then it is the database's role: the one of the session, or the one that was taken on."""
    flow = new(dsn)
    async with pgflow.Client(dsn) as client:
        await client.pause(flow)
    ((user,),) = ask(dsn, "SELECT session_user")
    (entry,) = ask(dsn, "SELECT actor, role, reason FROM pgflow.audit")
    assert entry == (user, user, None)
    name = f"operator_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {name} IN ROLE pg_read_all_data, pg_write_all_data")
    ask(dsn, f"GRANT USAGE ON SCHEMA pgflow TO {name}")
    try:
        with pgflow.SyncClient(make_conninfo(dsn, options=f"-c role={name}")) as other:
            other.resume(flow)
        assert ask(dsn, "SELECT actor, role FROM pgflow.audit ORDER BY id DESC LIMIT 1") == [(name, name)]
    finally:
        ask(dsn, f"DROP OWNED BY {name}")
        ask(dsn, f"DROP ROLE {name}")


CALLS = {
    "cancel": ("pending", "SELECT pgflow.cancel(%(id)s{more})"),
    "pause": ("pending", "SELECT pgflow.pause(%(id)s{more})"),
    "resume": ("paused", "SELECT pgflow.resume(%(id)s{more})"),
    "retry": ("failed", "SELECT pgflow.retry(%(id)s{more})"),
    "terminate": ("pending", "SELECT pgflow.terminate(%(id)s{more})"),
    "fork": ("failed", "SELECT pgflow.fork(%(id)s, '1'{more})"),
    "redeliver": ("pending", "SELECT pgflow.redeliver(%(signal)s{more})"),
    "drop": ("pending", "SELECT pgflow.drop_signal(%(signal)s{more})"),
}


@pytest.fixture(params=CALLS)
def operation(request: pytest.FixtureRequest, dsn: str) -> tuple[str, str, dict[str, UUID]]:
    """An operation, the call of its function, and what it is to be called with."""
    how, call = CALLS[request.param]
    id = new(dsn, how)
    return request.param, call, {"id": id, "signal": dead(dsn, id)}


def test_functions(dsn: str, operation: tuple[str, str, dict[str, UUID]]) -> None:
    """By name; in the caller's transaction, so that what is rolled back was never done."""
    name, call, values = operation
    statement = call.format(more=", reason => 'why not', actor => 'eva'").encode()
    with psycopg.connect(dsn) as connection:
        connection.execute(statement, values)
        assert connection.execute("SELECT count(*) FROM pgflow.audit").fetchone() == (1,)
        connection.rollback()
        assert count(dsn) == 0
        connection.execute(statement, values)
        connection.commit()
    ((what, id, actor, reason, subject),) = rows(dsn)
    assert (what, id, actor, reason) == (name, values["id"], "eva", "why not")
    assert subject == (str(values["signal"]) if name in ("redeliver", "drop") else None)


def test_functions_as_they_were_called_before(dsn: str, operation: tuple[str, str, dict[str, UUID]]) -> None:
    """Without either; what is done counts all the same, and so it does to code of before, which calls them so."""
    name, call, values = operation
    ask(dsn, call.format(more="").replace("%(id)s", f"'{values['id']}'").replace("%(signal)s", f"'{values['signal']}'"))
    ((user,),) = ask(dsn, "SELECT session_user")
    assert [(what, actor, reason) for what, _, actor, reason, _ in rows(dsn)] == [(name, user, None)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (", actor => ''", "expected a name of 1 to 200 printable characters"),
        (", actor => E'two\\nlines'", "expected a name of 1 to 200 printable characters"),
        (", actor => repeat('a', 201)", "expected a name of 1 to 200 printable characters"),
        (", reason => repeat('a', 2001)", "the reason has 2001 characters, expected at most 2000"),
    ],
)
def test_functions_refuse(dsn: str, operation: tuple[str, str, dict[str, UUID]], more: str, said: str) -> None:
    """And then nothing is done."""
    _, call, values = operation
    before = ask(dsn, "SELECT status, pause_requested FROM pgflow.runs"), ask(dsn, "SELECT problem FROM pgflow.signals")
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        connection.execute(call.format(more=more).encode(), values)
    assert count(dsn) == 0 and ask(dsn, "SELECT FROM pgflow.requests") == []
    assert before == (
        ask(dsn, "SELECT status, pause_requested FROM pgflow.runs"),
        ask(dsn, "SELECT problem FROM pgflow.signals"),
    )


async def test_what_is_refused_leaves_none(dsn: str, kim: Both) -> None:
    flow, ended, unknown = new(dsn), new(dsn, "completed"), uuid4()
    for operation in ("cancel", "pause", "resume", "retry"):
        with pytest.raises(pgflow.WorkflowNotFound):
            await getattr(kim, operation)(unknown, reason="why")
    with pytest.raises(pgflow.WorkflowNotFound):
        await kim.fork(unknown, "{1}", reason="why")
    with pytest.raises(pgflow.PgflowError, match="expected a failed one"):
        await kim.retry(flow, reason="why")
    with pytest.raises(pgflow.PgflowError, match="has no step at"):
        await kim.fork(flow, "{1}", reason="why")
    letter = dead(dsn, ended)
    with pytest.raises(pgflow.PgflowError, match="is completed"):
        await kim.redeliver(letter, reason="why")
    with pytest.raises(pgflow.WorkflowNotFound):
        await kim.drop(unknown, reason="why")
    assert count(dsn) == 0


async def test_what_changes_nothing_leaves_none(dsn: str, kim: Both) -> None:
    """A workflow that has ended; one that is not paused; one that is, or is about to be."""
    flow, ended, paused, running = new(dsn), new(dsn, "completed"), new(dsn, "paused"), new(dsn)
    ask(dsn, "UPDATE pgflow.runs SET status = 'running', worker_id = 7 WHERE workflow_id = %s", running)
    assert await kim.cancel(ended) is False
    assert await kim.pause(ended) is False
    assert await kim.resume(flow) is False
    assert await kim.pause(paused) is True
    assert count(dsn) == 0
    for _ in range(2):
        assert await kim.pause(running, reason="once") is True
    assert rows(dsn) == [("pause", running, "kim", "once", None)]


def test_two_pause_at_once(dsn: str) -> None:
    """The second one waits for the first, and then finds nothing to do."""
    flow = new(dsn)
    with ThreadPoolExecutor() as threads, psycopg.connect(dsn) as second, psycopg.connect(dsn) as first:
        pause = b"SELECT pgflow.pause(%s, reason => %s)"
        first.execute(pause, [flow, "first"])
        other = threads.submit(second.execute, pause, [flow, "second"])
        waiting = "SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        deadline = time.monotonic() + 60
        while not ask(dsn, waiting, second.info.backend_pid):
            assert time.monotonic() < deadline and not other.done(), "it does not wait"
            time.sleep(0.01)
        first.commit()
        assert other.result(60).fetchone() == (True,)
        second.commit()
    assert [reason for *_, reason, _ in rows(dsn)] == ["first"]


def test_a_fork_that_is_asked_for_twice(dsn: str) -> None:
    """By its id: it is done once, and written down once."""
    flow, id = new(dsn, "failed"), uuid4()
    for _ in range(2):
        assert ask(dsn, "SELECT pgflow.fork(%s, '1', %s)", flow, id) == [(id,)]
    assert count(dsn) == 1


async def test_in_the_transaction_of_the_caller(dsn: str, kim: Both) -> None:
    flow = new(dsn)
    connect: Any = psycopg.connect(dsn)
    if isinstance(kim.client, pgflow.Client):
        connect = await psycopg.AsyncConnection.connect(dsn)
    for ends in ("rollback", "commit"):
        await kim.cancel(flow, reason=ends, connection=connect)
        assert count(dsn) == 0
        ended = getattr(connect, ends)()
        if inspect.isawaitable(ended):
            await ended
    assert rows(dsn) == [("cancel", flow, "kim", "commit", None)]
    closed = connect.close()
    if inspect.isawaitable(closed):
        await closed


@pytest.fixture(scope="module")
def preparing() -> Iterator[str]:
    """A server that prepares transactions."""
    from pgflow.embedded import Postgres

    with Postgres(settings=databases.FAST | {"max_prepared_transactions": "10"}) as server:
        pgflow.migrate(server.dsn)
        yield server.dsn


def test_in_a_two_phase_commit(preparing: str) -> None:
    flow = new(preparing)
    with (
        pgflow.SyncClient(preparing, hints=False, actor="kim") as client,
        psycopg.connect(preparing) as connection,
    ):
        for number, ends in enumerate(("rollback", "commit")):
            connection.tpc_begin(connection.xid(1, f"cancel {number}", "pgflow"))
            client.cancel(flow, reason=ends, connection=connection)
            connection.tpc_prepare()
            assert count(preparing) == 0
            getattr(connection, f"tpc_{ends}")()
    assert rows(preparing) == [("cancel", flow, "kim", "commit", None)]


async def test_what_workers_do_leaves_none(dsn: str) -> None:
    """One row for what the operator did to the parent, none for its child; none for work, signals and dispatches."""
    async with (
        pgflow.Client(dsn, actor="kim") as client,
        pgflow.Worker(dsn, workflows=[parent, child]),
    ):
        handle = await client.dispatch(parent)
        await status(client, handle, "sleeping")
        (inner,) = await client.list("child")
        await client.signal(Go(), to=inner.id)
        await handle.output(timeout=20)
        assert await client.audit() == []
        handle = await client.dispatch(parent)
        await status(client, handle, "sleeping")
        await client.cancel(handle.id, reason="enough")
        with pytest.raises(pgflow.WorkflowCancelled):
            await handle.output(timeout=20)

        async def both() -> bool:
            return {info.status for info in await client.list(limit=2)} == {"cancelled"}

        await until(both)
        assert rows(dsn) == [("cancel", handle.id, "kim", "enough", None)]


async def test_who_and_why_that_cannot_be(dsn: str, kim: Both) -> None:
    flow = new(dsn)
    for actor in ("", "two\nlines", "a" * 201, 7):
        for kind in (pgflow.Client, pgflow.SyncClient):
            with pytest.raises(ValueError, match="actor=.*expected a name of 1 to 200 printable characters"):
                kind(dsn, actor=actor)  # type: ignore[arg-type]
    for reason in ("a" * 2001, "a\0b", "a\ud800b", 7):
        for operation in ("cancel", "pause", "resume", "retry", "redeliver", "drop"):
            with pytest.raises(ValueError, match="reason=.*expected a text of at most 2,000 characters"):
                await getattr(kim, operation)(flow, reason=reason)
        with pytest.raises(ValueError, match="reason="):
            await kim.fork(flow, "{1}", reason=reason)
    assert count(dsn) == 0 and ask(dsn, "SELECT FROM pgflow.requests") == []
    assert await kim.pause(flow, reason="a" * 2000) and await kim.resume(flow, reason="")
    assert [reason for *_, reason, _ in rows(dsn)] == ["a" * 2000, None]


async def test_a_list(dsn: str, kim: Both) -> None:
    """Filters, and page by page, also among rows of one transaction, which have one time."""
    flows = [new(dsn) for _ in range(3)]
    for flow in flows:
        await kim.pause(flow)
    with psycopg.connect(dsn) as connection:
        for _ in range(2):
            for flow in flows:
                connection.execute("SELECT pgflow.cancel(%s, actor => 'eva')", [flow])
    everything = await kim.audit()
    assert [entry.id for entry in everything] == sorted((entry.id for entry in everything), reverse=True)
    assert len(everything) == 9 and isinstance(everything[0], pgflow.AuditEntry)
    paged, after = [], None
    while page := await kim.audit(limit=2, after=after):
        paged += page
        after = page[-1].id
    assert paged == everything
    assert await kim.audit(str(flows[1])) == [entry for entry in everything if entry.workflow_id == flows[1]]
    assert await kim.audit(actor="eva") == [entry for entry in everything if entry.actor == "eva"]
    assert await kim.audit(operation="pause") == [entry for entry in everything if entry.operation == "pause"]
    assert await kim.audit(flows[0], actor="eva", operation="cancel", limit=1) == [everything[2]]
    assert await kim.audit(since=everything[0].at) == everything[:6]
    assert await kim.audit(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert await kim.audit(limit=0) == []


@pytest.mark.parametrize(
    "given",
    [
        {"workflow_id": "seven"},
        {"actor": 7},
        {"operation": "wake"},
        {"since": datetime(2026, 1, 1)},
        {"limit": -1},
        {"after": "seven"},
        {"after": -1},
    ],
)
async def test_a_list_that_cannot_be(dsn: str, kim: Both, given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match="id=" if name == "workflow_id" else f"{name}="):
        await kim.audit(**given)


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "audit_at"),
        ({"workflow_id": uuid4()}, "audit_workflow"),
        ({"actor": "kim"}, "audit_actor"),
        ({"since": datetime.now(UTC)}, "audit_at"),
    ],
)
def test_a_list_reads_no_more_than_it_tells(dsn: str, given: dict[str, Any], index: str) -> None:
    """By an index, in its order, whoever is asked for."""
    from pgflow.client.filters import AuditFilter

    ask(
        dsn,
        "INSERT INTO pgflow.audit (at, actor, role, operation, workflow_id) SELECT now() - n * interval '1 s', "
        "'actor ' || n, 'role', 'cancel', gen_random_uuid() FROM generate_series(1, 5000) AS n; "
        "ANALYZE pgflow.audit",
    )
    asked = {"workflow_id": None, "actor": None, "operation": None, "since": None, **given}
    query = AuditFilter(**asked, limit=10, after=None).query("pgflow")
    with Database(dsn).connect_blocking("explain") as connection:
        plan = connection.execute(b"EXPLAIN " + query.sql, query.params).fetchall()
    told = "\n".join(line for (line,) in plan)
    assert f"Index Scan Backward using {index}" in told and "Sort" not in told, told


def test_a_fork_into_a_queue_that_can_be_none(dsn: str) -> None:
    """Refused by SQL with the words of Python."""
    flow = new(dsn, "failed")
    words = "(?s)queue=.*: expected a name of 1 to 200 printable characters"
    with pgflow.SyncClient(dsn) as client:
        for queue in ("", "two\nlines", "a" * 201):
            with pytest.raises(ValueError, match=words):
                client.fork(flow, "{1}", queue=queue)
            with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InvalidParameterValue, match=words):
                connection.execute("SELECT pgflow.fork(%s, '1', queue => %s)", [flow, queue])
    assert ask(dsn, "SELECT FROM pgflow.workflows WHERE forked_from IS NOT NULL") == []
    ((forked,),) = ask(dsn, "SELECT pgflow.fork(%s, '1', queue => NULL)", flow)
    assert ask(dsn, "SELECT queue FROM pgflow.runs WHERE workflow_id = %s", forked) == [("default",)]


def old(dsn: str, days: int, how_many: int = 1) -> None:
    ask(
        dsn,
        "INSERT INTO pgflow.audit (at, actor, role, operation) "
        "SELECT now() - make_interval(days => %s), 'kim', 'role', 'pause' FROM generate_series(1, %s)",
        days,
        how_many,
    )


async def swept(dsn: str, keep: float = AUDIT_KEEP) -> None:
    ask(dsn, "UPDATE pgflow.chores SET next_at = now()")
    sweeper = Sweeper(Database(dsn), 86_400.0, keep)
    await sweeper.look()
    await sweeper._line.drop()


async def test_rows_that_are_old_go(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 400 days unless told otherwise, in parts."""
    monkeypatch.setattr(sweeping, "ROWS", 10)
    old(dsn, 401, 25)
    old(dsn, 399, 3)
    parts: list[int] = []

    async def note() -> None:
        parts.append(count(dsn))

    with faults.install({"sweeper.after_audit": note}):
        await swept(dsn)
    assert parts == [18, 8, 3]
    assert ask(dsn, "SELECT held_until, next_at > now() FROM pgflow.chores WHERE name = 'audit'") == [(None, True)]
    await swept(dsn, 398 * 86_400.0)
    assert count(dsn) == 0


async def test_one_removes_at_a_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "ROWS", 10)
    old(dsn, 500, 25)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not reached.is_set():
            reached.set()
            await go_on.wait()

    first, second = Sweeper(Database(dsn), 86_400.0), Sweeper(Database(dsn), 86_400.0)
    with faults.install({"sweeper.after_audit": hold}):
        removal = asyncio.create_task(first.look())
        await asyncio.wait_for(reached.wait(), 20)
        await second.look()
        assert count(dsn) == 15, "the second one has left it to the first"
        ask(dsn, "UPDATE pgflow.chores SET held_until = now(), next_at = now()")
        await second.look()
        assert count(dsn) == 0, "the first one's lease is over"
        old(dsn, 500)
        go_on.set()
        await removal
    assert count(dsn) == 1, "the first one has stopped"
    for sweeper in (first, second):
        await sweeper._line.drop()


async def test_a_worker_removes_them(dsn: str) -> None:
    old(dsn, 2)
    async with pgflow.Worker(dsn, workflows=[child], audit_keep=timedelta(days=1)):

        async def gone() -> bool:
            return count(dsn) == 0

        await until(gone, patience=60)


@pytest.mark.parametrize("keep", [-1, "a day", float("nan"), 1e12])
def test_a_time_to_keep_that_cannot_be(keep: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="audit_keep"):
        pgflow.Worker("postgresql:///app", workflows=[child], audit_keep=keep)


def test_who_might_operate_before_still_may(database_dsn: str) -> None:
    """Roles with rights on what there was, and none on what comes later: the migration passes them on."""
    dsn = database_dsn
    migrations.upgrade(dsn, revision="0013")
    flow = new(dsn)
    operator, nobody = (f"{kind}_{uuid4().hex[:8]}" for kind in ("operator", "nobody"))
    for name in (operator, nobody):
        ask(dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        ask(dsn, f"GRANT USAGE ON SCHEMA pgflow TO {name}")
        ask(dsn, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow TO {name}")
    ask(dsn, f"REVOKE INSERT, UPDATE, DELETE ON pgflow.requests FROM {nobody}")
    ask(dsn, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pgflow FROM PUBLIC")
    ask(dsn, f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgflow TO {operator}")
    try:
        pgflow.migrate(dsn)
        with psycopg.connect(make_conninfo(dsn, user=operator, password="secret"), autocommit=True) as connection:
            connection.execute("SELECT pgflow.cancel(%s)", [flow])
            connection.execute("SELECT pgflow.pause(%s)", [flow])
        assert [row[:3] for row in rows(dsn)] == [("cancel", flow, operator), ("pause", flow, operator)]
        with psycopg.connect(make_conninfo(dsn, user=nobody, password="secret"), autocommit=True) as connection:
            for call in ("cancel(%s)", "resume(%s)", "write_audit('cancel', %s, NULL, NULL, NULL)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
                    connection.execute(f"SELECT pgflow.{call}".encode(), [flow])
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table audit"):
                connection.execute("INSERT INTO pgflow.audit (actor, role, operation) VALUES ('kim', 'kim', 'cancel')")
            assert connection.execute("SELECT count(*) FROM pgflow.audit").fetchone() == (2,)
    finally:
        for name in (operator, nobody):
            ask(dsn, f"DROP OWNED BY {name}")
            ask(dsn, f"DROP ROLE {name}")


def test_rights_on_single_columns_are_not_passed_on(database_dsn: str) -> None:
    """The columns of `requests` are none of `audit`: such a role is given a right of its own (docs/operations.md)."""
    dsn = database_dsn
    migrations.upgrade(dsn, revision="0013")
    first, second = new(dsn), new(dsn)
    name = f"operator_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    ask(dsn, f"GRANT USAGE ON SCHEMA pgflow TO {name}")
    ask(dsn, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow TO {name}")
    ask(dsn, f"REVOKE ALL ON pgflow.requests FROM {name}")
    ask(dsn, f"GRANT INSERT (workflow_id, kind) ON pgflow.requests TO {name}")
    try:
        with psycopg.connect(make_conninfo(dsn, user=name, password="secret"), autocommit=True) as connection:
            connection.execute("SELECT pgflow.cancel(%s)", [first])
            pgflow.migrate(dsn)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table audit"):
                connection.execute("SELECT pgflow.cancel(%s)", [second])
            ask(dsn, f"GRANT INSERT ON pgflow.audit TO {name}")
            connection.execute("SELECT pgflow.cancel(%s)", [second])
        assert [row[:3] for row in rows(dsn)] == [("cancel", second, name)]
    finally:
        ask(dsn, f"DROP OWNED BY {name}")
        ask(dsn, f"DROP ROLE {name}")


def test_comments_of_functions(dsn: str) -> None:
    """They say what becomes of a reason."""
    found = ask(
        dsn,
        "SELECT proname FROM pg_proc AS p WHERE pronamespace = 'pgflow'::regnamespace "
        "AND proargnames @> '{reason,actor}' AND proname NOT IN ('write_audit', 'operate_many') "
        "AND obj_description(p.oid, 'pg_proc') LIKE '%go into the table audit%' ORDER BY 1",
    )
    assert [name for (name,) in found] == sorted({"drop_signal" if name == "drop" else name for name in CALLS})
