"""Processes that are forked while clients, workers and servers are open: each process has its own, and none touches
another's.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow import uuid7 as uuid7s
from pgflow.store.leasing import leases
from pgflow.store.schema import migrations
from pgflow.uuid7 import uuid7
from pgflow.worker.suspects import Suspects
from tests.client.fake import PATIENCE, end
from tests.waiting import until

FORKING = multiprocessing.get_context("fork")


@pgflow.message
@dataclass
class Said:
    text: str


@pgflow.activity
def in_a_child(ctx: pgflow.ActivityContext) -> str:
    """What libraries do that use processes: a fork, from a thread of the worker."""
    return str(forked(lambda: "done"))


@pgflow.workflow
async def forks(ctx: pgflow.WorkflowContext) -> str:
    return await ctx.activity(in_a_child)


@pgflow.activity
def works_in_a_child(ctx: pgflow.ActivityContext, dsn: str) -> int:
    """A child that has a worker of its own."""

    async def work() -> int:
        assert not Suspects._held and not Suspects._workers, "it counts what the parent holds"
        async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[job]):
            return await (await client.dispatch(job, 7)).output(PATIENCE)

    return int(forked(lambda: asyncio.run(work())))


@pgflow.workflow
async def works(ctx: pgflow.WorkflowContext, dsn: str) -> int:
    return await ctx.activity(works_in_a_child, dsn)


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, n: int = 0) -> int:
    return n


def forked(work: Callable[[], Any], meanwhile: Callable[[], Any] = lambda: None) -> Any:
    """What `work` returns in a forked child; an error of its is raised here."""
    answers = FORKING.SimpleQueue()

    def child() -> None:
        try:
            answers.put((True, work()))
        except BaseException as error:
            answers.put((False, f"{type(error).__name__}: {error}"))

    process = FORKING.Process(target=child)
    process.start()
    meanwhile()
    process.join(PATIENCE * 2)
    if process.is_alive():
        process.kill()
        pytest.fail("the child hangs")
    good, answer = answers.get()
    assert good, answer
    return answer


def sessions(dsn: str) -> set[int]:
    """Processes of the server that belong to pgflow's connections."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'mine %'").fetchall()
        return {pid for (pid,) in rows}


def named(client: Any) -> Any:
    """A client whose connections can be told from a child's."""
    for part in (client._core.connections, client._core.endings, client._core.subscriptions):
        object.__setattr__(part._database, "application", "mine")
    return client


def test_a_synchronous_client(dsn: str) -> None:
    """One thread waits, another listens, a third asks at the moment of the fork; each child and the parent go on by
    themselves.
    """
    with named(pgflow.SyncClient(dsn)) as client, client.subscribe(Said) as heard:
        first = client.dispatch(job)
        waiting = threading.Thread(target=first.output)
        waiting.start()
        busy = threading.Event()
        asking = threading.Thread(target=lambda: [client.list() for _ in iter(busy.is_set, True)])
        asking.start()

        def work() -> tuple[int, str]:
            object.__setattr__(client._core.connections._database, "application", "child")
            handles = [client.dispatch(job, n) for n in range(20)]
            assert [handle.info().input for handle in handles] == [{"n": n} for n in range(20)]
            end(dsn, [handles[0].id], "7")
            assert handles[0].output(PATIENCE) == 7
            with pytest.raises(RuntimeError, match="before a fork"):
                heard.next(timeout=PATIENCE)
            with client.subscribe(Said) as other, pytest.raises(TimeoutError):
                other.next(timeout=0.01)
            client.close() if hasattr(client, "close") else client.__exit__(None, None, None)
            return os.getpid(), str(handles[0].id)

        def meanwhile() -> None:
            for n in range(50):
                assert client.dispatch(job, n).info().input == {"n": n}

        found = [forked(work, meanwhile) for _ in range(3)]
        busy.set()
        asking.join(PATIENCE)
        before = sessions(dsn)
        assert len(found) == len(set(found)) == 3 and os.getpid() not in dict(found)
        end(dsn, [first.id], "3")
        waiting.join(PATIENCE)
        assert not waiting.is_alive()
        assert sessions(dsn) == before  # no child has ended a session of the parent's
        assert len(client.list(limit=1000)) == 1 + 3 * 70


def test_what_threads_hold_at_the_fork(dsn: str) -> None:
    """They are not there in the child, and will never give it back: its own calls, waits and migrations go on."""
    with pgflow.SyncClient(dsn, connections=1) as client, ExitStack() as held:
        client.dispatch(job)
        endings = client._core.endings
        for lock in (
            client._core.connections._places,
            endings._lock,
            endings._turn,
            migrations._one_at_a_time,
            uuid7s._lock,
        ):
            held.enter_context(lock)

        def work() -> int:
            handle = client.dispatch(job, 1)
            end(dsn, [handle.id], "7")
            migrations.migrate(dsn)
            return handle.output(PATIENCE)

        assert forked(work) == 7


def test_the_listener_is_the_childs_own(dsn: str) -> None:
    """The parent's thread listens in the parent alone: the child begins one when somebody waits."""
    with named(pgflow.SyncClient(dsn)) as client:
        handle = client.dispatch(job)
        end(dsn, [handle.id], "1")
        assert handle.output(PATIENCE) == 1
        other = client.dispatch(job)
        waiting = threading.Thread(target=other.output)
        waiting.start()
        listening = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s"

        def listeners(whose: str) -> int:
            with psycopg.connect(dsn) as connection:
                (found,) = connection.execute(listening, [f"{whose} endings%"]).fetchone() or (0,)
                return int(found)

        asyncio.run(until(lambda: listeners("mine"), "the parent listens"))

        def work() -> None:
            object.__setattr__(client._core.endings._database, "application", "child")
            threading.Thread(target=client.dispatch(job).output, daemon=True).start()
            asyncio.run(until(lambda: listeners("child"), "the child listens"))

        forked(work)
        end(dsn, [other.id], "2")
        waiting.join(PATIENCE)


async def test_an_asynchronous_client(dsn: str) -> None:
    async with named(pgflow.Client(dsn)) as client, client.subscribe(Said) as heard:
        first = await client.dispatch(job)
        waiting = asyncio.create_task(first.output())
        await until(lambda: client._core.endings._listener.listening.is_set(), "somebody listens")
        before = sessions(dsn)

        async def work() -> str:
            handle = await client.dispatch(job, 5)
            end(dsn, [handle.id], "7")
            assert await handle.output(PATIENCE) == 7
            with pytest.raises(RuntimeError, match="before a fork"):
                await heard.next(timeout=PATIENCE)
            async with client:
                return str((await client.dispatch(job, 6)).id)

        for _ in range(2):
            id = await asyncio.to_thread(forked, lambda: asyncio.run(work()))
            assert (await client.get(id)).input == {"n": 6}
        end(dsn, [first.id], "3")
        async with asyncio.timeout(PATIENCE):
            assert await waiting == 3
        assert before <= sessions(dsn)


async def test_a_worker(dsn: str) -> None:
    """It goes on; its child may run it as well, and takes nothing of what the parent has."""
    worker = pgflow.Worker(dsn, workflows=[forks, job])
    async with pgflow.Client(dsn) as client, worker:
        number = worker.id
        assert await (await client.dispatch(forks)).output(PATIENCE) == "done"

        async def work() -> int:
            assert worker.id is None
            async with worker, client:
                handle = await client.dispatch(job, 8)
                return int(await handle.output(PATIENCE)) + 1000 * (worker.id == number)

        assert await asyncio.to_thread(forked, lambda: asyncio.run(work())) == 8
        assert await (await client.dispatch(job, 9)).output(PATIENCE) == 9
        assert worker.id == number


async def test_what_runs_alone_in_the_parent(dsn: str) -> None:
    """It is suspected of many deaths, and its process takes nothing beside it; its child's workers do."""
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(works, dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("UPDATE pgflow.runs SET suspicions = '{1,2,3,4,5,6,7,8}', epoch = 1")
        async with pgflow.Worker(dsn, workflows=[works]):
            assert await handle.output(PATIENCE * 2) == 7


async def test_a_child_that_goes_on_in_the_parents_code_writes_nothing(dsn: str) -> None:
    """A fork in the middle of a worker's event loop, whose child does not leave: it holds no lease, and is told so."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[forks, job]) as worker:
        session = worker._session
        assert session is not None and worker.id is not None

        async def work() -> None:
            fence = session.fence if hasattr(session, "fence") else session.journal._line._fence
            assert fence is not None
            with pytest.raises(pgflow.errors.LeaseLost):
                await fence.settle()

        await asyncio.to_thread(forked, lambda: asyncio.run(work()))
        assert await (await client.dispatch(job, 9)).output(PATIENCE) == 9


async def test_a_child_that_lives_on_keeps_no_session(dsn: str) -> None:
    """The server hears that the parent has hung up, though a child has come into the world with all its sockets."""
    client = named(pgflow.SyncClient(make_conninfo(dsn)))
    with client:
        client.dispatch(job)
        (number,) = {connection.fileno() for connection in client._core.connections._free}
        assert forked(lambda: not stat.S_ISSOCK(os.fstat(number).st_mode))
        assert sessions(dsn)
        go_on = FORKING.Event()
        process = FORKING.Process(target=go_on.wait)
        process.start()
    try:
        await until(lambda: not sessions(dsn), "the sessions end")
        assert process.is_alive()
    finally:
        go_on.set()
        process.join(PATIENCE)


OWNER = """
import os, sys, time, pgflow.embedded
with pgflow.embedded.Postgres(settings={"fsync": "off"}) as server:
    if not os.fork():
        server.stop()  # not its own
        os.write(1, f"{os.getpid()}\\n".encode())
        time.sleep(600)
        os._exit(0)
    os.write(1, f"{server.dsn}\\n".encode())
    time.sleep(600)
"""


async def test_an_embedded_server_is_its_owners_alone() -> None:
    """A child does not stop it, nor keep it from ending with its owner."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    told = [owner.stdout.readline().strip() for _ in range(2)]
    (child,) = (int(line) for line in told if line.isdigit())
    (dsn,) = (line for line in told if not line.isdigit())
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT 1")
        owner.kill()
        owner.wait()

        def gone() -> bool:
            try:
                psycopg.connect(dsn).close()
            except psycopg.OperationalError:
                return True
            return False

        await until(gone, "the server ends")
        os.kill(child, 0)  # while the child lives
    finally:
        owner.kill()
        os.kill(child, signal.SIGKILL)
        owner.stdout.close()


def test_ids_of_forked_processes_are_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of the same millisecond, in which one would grow from another by small steps."""
    monkeypatch.setattr(uuid7s, "time", types.SimpleNamespace(time_ns=lambda: 1_700_000_000_000_000_000))
    last = uuid7().int
    others = [forked(lambda: uuid7().int) for _ in range(3)]
    assert all(abs(one - other) > 1 << 40 for one in others for other in [last, *others] if one is not other)


def test_a_forked_process_is_another_process() -> None:
    """Workers of one process die together; a child and its parent do not."""
    names = {leases.this_process(), forked(leases.this_process), forked(leases.this_process)}
    assert len(names) == 3
