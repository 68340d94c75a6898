"""Messages where notifications are lost or forbidden, connections break, the table is emptied, or there are too many.
About 20 seconds.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow import faults
from pgflow.model.rows import Message
from pgflow.store.client import endings, subscriptions
from pgflow.store.client.sync import subscriptions as sync_subscriptions
from pgflow.store.database.channels import Notice, message_channel
from pgflow.store.database.connections import Database, still_open
from pgflow.store.notify import messages, outbox
from pgflow.store.notify import notifier as notifier_module
from pgflow.store.notify.notifier import Notifier
from tests.client.fake import count, kill_connections, proxy
from tests.messages import flows
from tests.messages.flows import More, Progress
from tests.messages.test_messages import WAIT, read
from tests.waiting import until


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at the table looks often."""
    monkeypatch.setattr(endings, "POLL", 0.05)
    monkeypatch.setattr(endings, "POLL_BLIND", 0.05)


@pytest.fixture(params=["a pooler", "a server that has none"])
def deaf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notifications do not come."""

    def hears_nothing_either(*_: Any) -> bool:
        if request.param == "a server that has none":
            raise psycopg.errors.SyntaxError('at or near "listen"')
        return False

    async def hears_nothing(*_: Any) -> bool:
        return hears_nothing_either()

    monkeypatch.setattr(subscriptions.Subscriptions, "_listen", hears_nothing)
    monkeypatch.setattr(sync_subscriptions.Subscriptions, "_listen", hears_nothing_either)


def message(done: int, name: str = "progress", tags: str = "{}") -> Message:
    """A message as a workflow's run hands it over."""
    return Message(uuid.uuid4(), name, tags, f'{{"done":{done}}}')


def send(dsn: str, *sent: Message) -> None:
    """Send messages as a worker does."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = messages.store("pgflow", sent)
        ids = query.read(connection.execute(query.sql, query.params).fetchall())
        notices = [Notice(id, one.name, one.tags, one.body) for id, one in zip(ids, sent, strict=True)]
        announcement = messages.announce("pgflow", notices)
        connection.execute(announcement.sql, announcement.params)


async def test_a_subscriber_whose_connection_broke_listens_again(
    client: pgflow.Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was sent meanwhile it finds in the table, and no notification overtakes that."""
    listener = client._core.subscriptions
    again, go_on = asyncio.Event(), asyncio.Event()
    listen, execute = listener._listen, client._core.connections.execute

    async def listen_late(connection: Any) -> bool:
        await again.wait()
        return await listen(connection)

    async def look_late(query: Any) -> Any:
        if "known" in query.params:
            await go_on.wait()
        return await execute(query)

    async with client.subscribe(Progress) as subscribed:
        notifier = Notifier(Database(dsn))
        notifier.start()
        notifier.publish([message(0)])
        assert await read(subscribed, 1) == [0]
        monkeypatch.setattr(listener, "_listen", listen_late)
        monkeypatch.setattr(client._core.connections, "execute", look_late)
        kill_connections(dsn)
        await until(lambda: listener._listening is None, "the connection to be missed")
        notifier.publish([message(1)])
        await until(lambda: count(dsn, "messages") == 2, "the second message")
        again.set()
        await until(lambda: listener._listening is not None, "listening again")
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as other:
            await other.execute(f"LISTEN {message_channel('pgflow')}")
            notifier.publish([message(2)])
            async for told in other.notifies(timeout=WAIT, stop_after=1):
                assert told.payload.endswith('{"done":2}')
        assert len(subscribed._inbox) == 0
        go_on.set()
        assert await read(subscribed, 2) == [1, 2]
        notifier.publish([message(3)])
        assert await read(subscribed, 1) == [3]
        await notifier.close()
    assert notifier.outbox.lost == 0, "the server said that it did nothing, so that it could be tried again"


async def test_a_thread_listens_again(dsn: str) -> None:
    def work() -> list[int]:
        with pgflow.SyncClient(dsn) as client, client.subscribe(Progress) as subscribed:
            kill_connections(dsn)
            send(dsn, message(0), message(1))
            return [subscribed.next(WAIT).done for _ in range(2)]

    assert await asyncio.to_thread(work) == [0, 1]


async def test_looking_tells_while_nobody_can_listen(
    dsn: str, often: None, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that listens cannot be opened; the others go on."""

    async def refused(*_: Any) -> Any:
        raise psycopg.OperationalError("no connection is left for this")

    def refused_too(*_: Any) -> Any:
        raise psycopg.OperationalError("no connection is left for this")

    def in_a_thread() -> list[int]:
        with pgflow.SyncClient(dsn) as blocking, blocking.subscribe(Progress) as subscribed:
            loop.call_soon_threadsafe(begun.set)
            return [subscribed.next(WAIT).done for _ in range(2)]

    for module, refusing in ((subscriptions, refused), (sync_subscriptions, refused_too)):
        monkeypatch.setattr(module, "connect", refusing)
        monkeypatch.setattr(module, "PATIENCE", 0.0)
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    thread = asyncio.create_task(asyncio.to_thread(in_a_thread))
    await asyncio.wait_for(begun.wait(), WAIT)
    async with client.subscribe(Progress) as subscribed:
        send(dsn, message(0), message(1))
        assert await read(subscribed, 2) == [0, 1]
    assert await thread == [0, 1]


async def test_a_thread_waits_no_longer_than_it_says_while_nobody_can_listen(
    dsn: str, client: pgflow.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Any:
        raise psycopg.OperationalError("no connection is left for this")

    def in_a_thread() -> None:
        with pgflow.SyncClient(dsn) as blocking:
            subscribed = blocking.subscribe(Progress)
            for timeout in (0, 0.1):
                with pytest.raises(TimeoutError):
                    subscribed.next(timeout)

    monkeypatch.setattr(sync_subscriptions, "connect", refused)
    monkeypatch.setattr(sync_subscriptions, "PATIENCE", 2 * WAIT)
    await asyncio.wait_for(asyncio.to_thread(in_a_thread), WAIT)


@pytest.mark.parametrize("length", [0, 9_000])
async def test_looking_tells_where_notifications_do_not_come(
    dsn: str, often: None, deaf: None, client: pgflow.Client, worker: pgflow.Worker, length: int
) -> None:
    def in_a_thread() -> list[int]:
        with pgflow.SyncClient(dsn) as blocking, blocking.subscribe(Progress) as subscribed:
            loop.call_soon_threadsafe(begun.set)
            return [subscribed.next(WAIT).done for _ in range(5)]

    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    thread = asyncio.create_task(asyncio.to_thread(in_a_thread))
    await asyncio.wait_for(begun.wait(), WAIT)
    await (await client.dispatch(flows.publish, 1, note="x" * length, labels={"n": 1})).output(WAIT)
    assert (await client.subscribe(Progress, last=True).next(WAIT)).done == 0
    async with client.subscribe(Progress, {"n": 2}) as subscribed:
        handle = await client.dispatch(flows.publish, 4, note="x" * length, labels={"n": 2})
        assert await read(subscribed, 4) == [0, 1, 2, 3]
        await handle.output(WAIT)
        for _ in range(3):  # looks that go over the same messages again
            assert await client._core.subscriptions._look_once() is False
        with pytest.raises(TimeoutError):
            await subscribed.next(0)
    assert await thread == [0, 0, 1, 2, 3]


@pytest.fixture
def modest_dsn(dsn: str) -> Iterator[str]:
    """As a role that may work on the tables but not notify."""
    name = sql.Identifier(f"modest_{uuid.uuid4().hex[:12]}")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for text in (
            "CREATE ROLE {} LOGIN PASSWORD 'modest'",
            "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC",
            "GRANT USAGE ON SCHEMA pgflow TO {}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow TO {}",
        ):
            connection.execute(sql.SQL(text).format(name))
        try:
            yield make_conninfo(dsn, user=name.as_string()[1:-1], password="modest")
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
            connection.execute(sql.SQL("DROP ROLE {}").format(name))


async def test_where_notifications_are_forbidden(
    modest_dsn: str, often: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        pgflow.Worker(modest_dsn, workflows=flows.ALL, poll=0.05),
        pgflow.Client(modest_dsn) as client,
        client.subscribe(Progress) as subscribed,
    ):
        await (await client.dispatch(flows.publish, 3)).output(WAIT)
        assert await read(subscribed, 3) == [0, 1, 2]
    assert "lost" not in caplog.text, "it is asked whether they are allowed, not found out by an error"


async def test_numbers_that_begin_anew(dsn: str, client: pgflow.Client) -> None:
    """A server's crash empties the table, and its numbers begin at 1 again."""
    async with client.subscribe(Progress) as subscribed:
        notifier = Notifier(Database(dsn))
        notifier.start()
        notifier.publish([message(number) for number in range(5)])
        assert await read(subscribed, 5) == [0, 1, 2, 3, 4]
        with psycopg.connect(dsn) as connection:
            connection.execute("TRUNCATE pgflow.messages RESTART IDENTITY")
        kill_connections(dsn)
        await until(lambda: _has_looked(dsn), "the client to look at the empty table")
        notifier.publish([message(number) for number in range(5, 8)])
        assert await read(subscribed, 3) == [5, 6, 7]
        await notifier.close()


async def test_history_does_not_wait_for_messages(dsn: str, client: pgflow.Client, worker: pgflow.Worker) -> None:
    """They go their own way after the commit: while nothing can be stored there, workflows go on."""
    async with client.subscribe(Progress) as subscribed:
        with psycopg.connect(dsn) as blocker:
            blocker.execute("LOCK TABLE pgflow.messages IN SHARE MODE")
            assert await (await client.dispatch(flows.publish, 5)).output(WAIT) == 5
            await until(lambda: _waits_for_lock(dsn), "the messages to wait")
        assert await read(subscribed, 5) == [0, 1, 2, 3, 4]


def _has_looked(dsn: str) -> bool:
    """Whether a client's connection has read messages: none of those that did before is left."""
    with psycopg.connect(dsn) as connection:
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' "
            "AND application_name = 'pgflow client client' AND query LIKE '%messages%'"
        )
        return connection.execute(query).fetchone() is not None


def _waits_for_lock(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        return connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None


async def test_a_stopping_worker_sends_what_it_has(dsn: str, client: pgflow.Client) -> None:
    async with client.subscribe(Progress) as subscribed:
        held = asyncio.Event()
        with faults.install({"outbox.before_store": held.wait}):
            async with pgflow.Worker(dsn, workflows=flows.ALL):
                await (await client.dispatch(flows.publish, 3)).output(WAIT)
                assert count(dsn, "messages") == 0
                held.set()
        assert await read(subscribed, 3) == [0, 1, 2]


async def test_what_waits_is_bounded(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box = outbox.Outbox("pgflow")
    monkeypatch.setattr(outbox, "MOST", 10)
    box.add([message(number) for number in range(15)])
    assert (len(box), box.lost) == (10, 5)
    assert "5 messages were lost: more than 10" in caplog.text
    monkeypatch.setattr(outbox, "MOST_CHARACTERS", 50)
    box.add([message(15)])
    assert (len(box), box.lost) == (4, 12)
    monkeypatch.setattr(outbox, "CHARACTERS_AT_ONCE", 25)
    connection = await Database(dsn).connect("test")
    await box.send(connection, tell=True)
    await connection.close()
    assert (len(box), box.lost) == (0, 12)
    with psycopg.connect(dsn) as looking:
        found = looking.execute("SELECT body ->> 'done', xmin::text FROM pgflow.messages ORDER BY id").fetchall()
    assert [row[0] for row in found] == ["12", "13", "14", "15"]
    assert len({row[1] for row in found}) == 2, "two parts, in statements of their own"


async def test_nothing_is_sent_twice_when_an_answer_is_lost(dsn: str) -> None:
    """It is not known what became of it, so it is given up; what comes after it is sent."""
    async with proxy(dsn) as way:
        notifier = Notifier(Database(way.dsn))
        notifier.start()
        notifier.publish([message(0)])
        await until(lambda: count(dsn, "messages") == 1, "the first one")
        way.cut_after = b"doomed"
        notifier.publish([message(1, "doomed")])
        await until(lambda: notifier.outbox.lost == 1, "the message to be given up")
        notifier.publish([message(2)])
        await until(lambda: count(dsn, "messages") == 3, "the next one")
        await notifier.close()
        assert way.cuts == 1
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT body ->> 'done' FROM pgflow.messages ORDER BY id").fetchall()
    assert [row[0] for row in found] == ["0", "1", "2"]


async def test_what_the_database_refuses_is_given_up(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(Database(dsn))
    notifier.start()
    notifier.publish([Message(uuid.uuid4(), "progress", "{}", "no json")])
    await until(lambda: notifier.outbox.lost == 1, "the message to be given up")
    notifier.publish([message(1)])
    await until(lambda: count(dsn, "messages") == 1, "the next one")
    await notifier.close()
    assert "1 message was lost: invalid input syntax for type json" in caplog.text


async def test_strangers_may_notify(dsn: str, client: pgflow.Client) -> None:
    """What is no message is passed over."""
    payloads = [
        "",
        "x",
        "1",
        "1 ",
        "a progress\n{}\n{}",
        "2 progress",
        "3 progress\n[]\n{}",
        "4 progress\n" + "[" * 7_000,
        f"{'9' * 30} progress\n{{}}\n{{}}",
    ]
    async with client.subscribe(Progress) as subscribed:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for payload in payloads:
                connection.execute("SELECT pg_notify(%s, %s)", [message_channel("pgflow"), payload])
            connection.execute("SELECT pg_notify(%s, %s)", [message_channel("pgflow"), '5 progress\n{}\n{"done":5}'])
        assert await read(subscribed, 1) == [5]


async def test_old_ones_are_removed_a_few_at_a_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By workers; nobody waits for one that is held by somebody else."""
    monkeypatch.setattr(messages, "TRIM_AT_ONCE", 10)
    monkeypatch.setattr(notifier_module, "TRIM_AT_ONCE", 10)
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO pgflow.messages (name, body, sent_at) SELECT 'progress', '{}', now() - make_interval(secs => "
            "age) FROM unnest(%s::float[]) AS age",
            [[messages.RETENTION + 60] * 35 + [messages.RETENTION - 60] * 5],
        )
        query = messages.trim("pgflow")
        assert query.read(connection.execute(query.sql, query.params).fetchall()) == 10
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT FROM pgflow.messages WHERE id BETWEEN 11 AND 20 FOR UPDATE")
        with psycopg.connect(dsn, options="-c lock_timeout=5s") as connection:
            assert query.read(connection.execute(query.sql, query.params).fetchall()) == 0
    monkeypatch.setattr(notifier_module, "TRIM_EVERY", 0.0)
    async with pgflow.Worker(dsn, workflows=flows.ALL):
        await until(lambda: count(dsn, "messages") == 5, "the old ones to go")
    async with pgflow.Client(dsn) as client:
        notifier = Notifier(Database(dsn))
        assert notifier._until_trim() is None, "clients remove nothing"
        assert client._core.connections._hinting._notifier._until_trim() is None


async def test_two_workers_do_not_lose_order_or_messages(dsn: str, client: pgflow.Client) -> None:
    """Each workflow's messages come in order, whichever worker has it."""
    async with (
        pgflow.Worker(dsn, workflows=flows.ALL, cached=0),
        pgflow.Worker(dsn, workflows=flows.ALL, cached=0),
        client.subscribe(Progress, buffer=10_000) as subscribed,
    ):
        handles = await client.dispatch_many(flows.on_demand, [{}] * 20)
        own = [client.subscribe(Progress, {"workflow": str(handle.id)}) for handle in handles]
        for one in own:
            await one.__aenter__()
        for _ in range(5):
            for handle in handles:
                await client.signal(More(2), to=handle.id)
        for one in own:
            assert await read(one, 10) == list(range(10))
        assert sorted(await read(subscribed, 200)) == sorted(list(range(10)) * 20)


async def test_a_connection_that_broke_while_idle_costs_no_message(dsn: str) -> None:
    """That it broke is noticed before something is sent through it: afterwards nobody could tell what
    became of that.
    """
    notifier = Notifier(Database(dsn))
    notifier.start()
    box = notifier.outbox
    for number in range(3):
        notifier.publish([message(number)])
        await until(lambda: box.sent + box.lost > number, "the message")  # noqa: B023  # it ends before the next turn
        assert (box.sent, box.lost) == (number + 1, 0)
        kill_connections(dsn)
    await notifier.close()
    for _ in range(5):
        async with await Database(dsn).connect("test") as connection:
            assert still_open(connection)
            kill_connections(dsn)
            assert not connection.closed, "nobody has looked yet"
            assert not still_open(connection)
