"""Whatever an operator does leaves a row in the table `audit`, in the same transaction; nothing else does."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgflow
from tests import databases
from tests.operate.audit_rows import Both, ask, count, dead, new, rows
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
    ask(dsn, f"GRANT EXECUTE ON FUNCTION pgflow.resume TO {name}")
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
    "wake": ("sleeping", "SELECT pgflow.wake(%(id)s{more})"),
    "update": ("pending", "SELECT pgflow.update_workflow(%(id)s, priority => 7{more})"),
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
    with databases.embedded({"max_prepared_transactions": "10"}) as dsn:
        pgflow.migrate(dsn)
        yield dsn


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


def test_comments_of_functions(dsn: str) -> None:
    """They say what becomes of a reason."""
    found = ask(
        dsn,
        "SELECT proname FROM pg_proc AS p WHERE pronamespace = 'pgflow'::regnamespace "
        "AND proargnames @> '{reason,actor}' AND proname NOT IN ('write_audit', 'operate_many') "
        "AND obj_description(p.oid, 'pg_proc') LIKE '%go into the table audit%' ORDER BY 1",
    )
    assert [name for (name,) in found] == sorted(
        {{"drop": "drop_signal", "update": "update_workflow"}.get(name, name) for name in CALLS}
        | {"prune", "rewind", "set_retention", "reset_retention"}
    )
