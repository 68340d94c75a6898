"""Messages from end to end: published by workflows, read by subscribers, through notifications. About 25 seconds."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow.store.database.channels import PAYLOAD_BYTES, Notice, message_payload
from tests.client.fake import count
from tests.messages import flows
from tests.messages.flows import More, Other, Progress

WAIT = 20.0


async def read(messages: pgflow.Subscription[Progress], number: int) -> list[int]:
    """The numbers of the next so many messages."""
    return [(await messages.next(WAIT)).done for _ in range(number)]


async def test_they_come_whole_and_in_order(client: pgflow.Client, worker: pgflow.Worker) -> None:
    async with client.subscribe(Progress) as messages:
        handle = await client.dispatch(flows.publish, 20, note="ä\n\t\"'\\", labels={"a": 1})
        assert [await messages.next(WAIT) for _ in range(20)] == [Progress(i, "ä\n\t\"'\\") for i in range(20)]
        assert await handle.output(WAIT) == 20
        assert messages.dropped == 0


async def test_what_history_shows(client: pgflow.Client, worker: pgflow.Worker) -> None:
    handle = await client.dispatch(flows.publish, 1, note="half", labels={"customer": 7})
    await handle.output(WAIT)
    (event,) = await client.history(handle.id)
    assert (event.kind, event.name, event.status, event.output) == ("message_send", "progress", "completed", None)
    assert event.input == {
        "tags": {"customer": 7},
        "body": {"done": 0, "note": "half", "at": "2030-01-01T00:00:00+00:00"},
    }


async def test_tags_and_types_choose(client: pgflow.Client, worker: pgflow.Worker) -> None:
    async with (
        client.subscribe(Progress, tags={"customer": 7}) as one,
        client.subscribe(Progress, tags={"customer": 7.0, "region": "eu"}) as narrow,
        client.subscribe(Progress, {"customer": 8}) as other,
        client.subscribe(Progress) as all,
        client.subscribe(Other) as others,
    ):
        await (await client.dispatch(flows.publish, 2, labels={"customer": 7})).output(WAIT)
        await (await client.dispatch(flows.publish, 3, labels={"customer": 7, "region": "eu"})).output(WAIT)
        await (await client.dispatch(flows.publish, 1, labels={"customer": 8})).output(WAIT)
        await (await client.dispatch(flows.mistaken, "undeclared")).output(WAIT)
        assert await read(one, 5) == [0, 1, 0, 1, 2]
        assert await read(narrow, 3) == [0, 1, 2]
        assert await read(other, 1) == [0]
        assert await read(all, 6) == [0, 1, 0, 1, 2, 0]
        assert await others.next(WAIT) == Other(value=7)
        for messages in (one, narrow, other, all, others):
            with pytest.raises(TimeoutError):
                await messages.next(0)


async def test_many_subscribers_of_many_clients(dsn: str, worker: pgflow.Worker) -> None:
    clients = [pgflow.Client(dsn, connections=1) for _ in range(5)]
    subscriptions = [client.subscribe(Progress, {"n": i % 3}) for client in clients for i in range(40)]
    begun = [asyncio.create_task(messages.__aenter__()) for messages in subscriptions]
    await asyncio.gather(*begun)
    await clients[0].dispatch(flows.burst, 60)
    read_all = await asyncio.gather(*[read(messages, 20) for messages in subscriptions])
    for i, numbers in enumerate(read_all):
        assert numbers == list(range(i % 40 % 3, 60, 3))
    for client in clients:
        await client.__aexit__(None, None, None)


def _size(note: int) -> int:
    """The bytes of a notification that carries a body with a note of so many letters."""
    letters = "x" * note
    text = f'{{"done":0,"note":"{letters}","at":"2030-01-01T00:00:00+00:00"}}'
    return len(f"1 progress\n{{}}\n{text}")


@pytest.mark.parametrize("letter", ["x", "ä", "😀"])
async def test_large_ones(client: pgflow.Client, worker: pgflow.Worker, letter: str) -> None:
    """Of all sizes around what fits into a notification, and up to the limit of payloads; none overtakes another."""
    fits = (PAYLOAD_BYTES - _size(0)) // len(letter.encode())
    lengths = [fits - 1, fits, fits + 1, 0, 8_000, 100_000, 3, 1_000_000 // len(letter.encode()), 5]
    async with client.subscribe(Progress) as messages:
        await client.dispatch(flows.sizes, letter, lengths)
        assert [await messages.next(WAIT) for _ in lengths] == [
            Progress(done, letter * length) for done, length in enumerate(lengths)
        ]


def test_payloads_fit() -> None:
    for size in range(PAYLOAD_BYTES - 100, PAYLOAD_BYTES + 100):
        for letter in "xä😀":
            payload = message_payload(
                Notice(2**62, "n" * 200, '{"a":1}', f'"{letter * (size // len(letter.encode()))}"')
            )
            assert len(payload.encode()) <= PAYLOAD_BYTES


async def test_the_largest_tags(client: pgflow.Client, worker: pgflow.Worker) -> None:
    """As large as they may be, they fit beside a name into a notification."""
    tags = {"a": "\U0001f600" * 1_020}
    async with client.subscribe(Progress, tags=tags) as messages:
        await client.dispatch(flows.publish, 1, note="x" * 5_000, labels=tags)
        assert len((await messages.next(WAIT)).note) == 5_000


async def test_a_late_subscriber_gets_the_last_one(client: pgflow.Client, worker: pgflow.Worker) -> None:
    for note, tags in (("", {"n": 1}), ("x" * 9_000, {"n": 2}), ("", {"n": 3})):
        await (await client.dispatch(flows.publish, 3, note=note, labels=tags)).output(WAIT)

    async def stored() -> None:
        while count(worker._database.dsn, "messages") < 9:
            await asyncio.sleep(0.005)

    await asyncio.wait_for(stored(), WAIT)
    async with (
        client.subscribe(Progress, {"n": 2}, last=True) as late,
        client.subscribe(Progress, {"n": 2}) as later,
        client.subscribe(Progress, {"n": 4}, last=True) as never,
        client.subscribe(Other, last=True) as others,
    ):
        found = await late.next(WAIT)
        assert (found.done, len(found.note)) == (2, 9_000)
        for messages in (late, later, never, others):
            with pytest.raises(TimeoutError):
                await messages.next(0.01)
        await client.dispatch(flows.publish, 3, labels={"n": 2})
        assert await read(late, 3) == [0, 1, 2]
        assert await read(later, 3) == [0, 1, 2]


@pytest.mark.parametrize("cached", [1000, 0])
async def test_a_replay_sends_nothing_again(dsn: str, client: pgflow.Client, cached: int) -> None:
    async with pgflow.Worker(dsn, workflows=flows.ALL, cached=cached):
        handle = await client.dispatch(flows.on_demand)
        async with client.subscribe(Progress, {"workflow": str(handle.id)}) as messages:
            for turn in range(4):
                await client.signal(More(2), to=handle.id)
                assert await read(messages, 2) == [2 * turn, 2 * turn + 1]
            await client.signal(More(0), to=handle.id)
            assert await handle.output(WAIT) == 8
    assert count(dsn, "messages") == 8


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "undeclared",
            "TypeError: ctx.publish: expected a class declared by @pgflow.message, found <class "
            "'tests.messages.flows.Undeclared'>",
        ),
        ("class", "TypeError: ctx.publish: expected a class declared by @pgflow.message, found <class 'type'>"),
        ("large", 'SerializationError: message "progress" is 2,000,0'),
        ("deep tags", "ValueError: tags: 'a': {'b': 1} is not flat"),
        ("large tags", "SerializationError: tags are 5,008 bytes of JSON; expected at most 4,096"),
    ],
)
async def test_what_cannot_be_published(client: pgflow.Client, worker: pgflow.Worker, kind: str, told: str) -> None:
    """It is an error of the code's, and takes no place in history."""
    handle = await client.dispatch(flows.mistaken, kind)
    assert (await handle.output(WAIT)).startswith(told)
    assert [(e.location, e.kind, e.name) for e in await client.history(handle.id)] == [
        ("{1}", "message_send", "other message")
    ]


def test_what_cannot_be_subscribed_to(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        with pytest.raises(
            TypeError, match="subscribe: expected a class declared by @pgflow.message, found .*Undeclared"
        ):
            client.subscribe(flows.Undeclared)
        with pytest.raises(TypeError, match="subscribe: expected a class declared by @pgflow.message, found .*More"):
            client.subscribe(More)
        with pytest.raises(ValueError, match="not flat"):
            client.subscribe(Progress, tags={"a": []})
        with pytest.raises(ValueError, match="buffer=0: expected a whole number, at least 1"):
            client.subscribe(Progress, buffer=0)


@pytest.mark.parametrize("note", ["", "x" * 9_000])
async def test_a_slow_subscriber_misses_the_oldest(client: pgflow.Client, worker: pgflow.Worker, note: str) -> None:
    async with client.subscribe(Progress, buffer=3) as slow, client.subscribe(Progress) as quick:
        await client.dispatch(flows.publish, 10, note=note)
        assert await read(quick, 10) == list(range(10))
        assert await read(slow, 3) == [7, 8, 9]
        assert (slow.dropped, quick.dropped) == (7, 0)


async def test_a_large_one_that_was_removed_before_its_turn_counts_as_dropped(
    dsn: str, client: pgflow.Client, worker: pgflow.Worker
) -> None:
    async with client.subscribe(Progress) as slow, client.subscribe(Progress) as quick:
        await client.dispatch(flows.publish, 2, note="x" * 9_000)
        assert await read(quick, 2) == [0, 1]
        with psycopg.connect(dsn) as connection:
            connection.execute("DELETE FROM pgflow.messages")
        await client.dispatch(flows.publish, 1)
        assert await read(slow, 1) == [0]
        assert slow.dropped == 2


async def test_a_large_one_is_read_once_for_all_who_wait(
    client: pgflow.Client, worker: pgflow.Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the one who asked first goes away."""
    read_bodies = 0
    reading, go_on = asyncio.Event(), asyncio.Event()
    execute = client._core.connections.execute

    async def counting(query: Any, *within: Any) -> Any:
        nonlocal read_bodies
        if b"SELECT body::text" in query.sql:
            read_bodies += 1
            reading.set()
            await go_on.wait()
        return await execute(query, *within)

    monkeypatch.setattr(client._core.connections, "execute", counting)
    subscriptions = [client.subscribe(Progress) for _ in range(20)]
    waiting = [asyncio.create_task(messages.next()) for messages in subscriptions]
    for messages in subscriptions:
        await messages.__aenter__()
    await client.dispatch(flows.publish, 1, note="x" * 9_000)
    await asyncio.wait_for(reading.wait(), WAIT)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    go_on.set()
    assert {len(found.note) for found in await asyncio.gather(*waiting[1:])} == {9_000}
    assert read_bodies == 1
    assert await read(subscriptions[0], 1) == [0]


async def test_a_body_that_does_not_fit_its_class(dsn: str, client: pgflow.Client, worker: pgflow.Worker) -> None:
    @pgflow.message(name="progress")
    class Changed(Other):
        pass

    async with client.subscribe(Changed) as messages, client.subscribe(Progress) as plain:
        await client.dispatch(flows.publish, 2)
        for _ in range(2):
            with pytest.raises(pgflow.SerializationError, match=r'message "progress" \d+ does not fit .*Changed'):
                await messages.next(WAIT)
        assert await read(plain, 2) == [0, 1]


async def test_a_loop_over_them_ends_when_it_is_closed(client: pgflow.Client, worker: pgflow.Worker) -> None:
    messages = client.subscribe(Progress)
    seen = []

    async def loop() -> None:
        async for progress in messages:
            seen.append(progress.done)
            if progress.done == 4:
                messages.close()

    async with messages:
        await client.dispatch(flows.publish, 10)
        await asyncio.wait_for(loop(), WAIT)
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(StopAsyncIteration):
        await messages.next()


async def test_closing_the_client_tells_those_who_wait(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        messages = client.subscribe(Progress)
        await messages.__aenter__()
        waiting = asyncio.create_task(messages.next())
        late = client.subscribe(Progress)
        await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="client is closed"):
        await asyncio.wait_for(waiting, WAIT)
    with pytest.raises(RuntimeError, match="client is closed"):
        await asyncio.wait_for(late.next(), WAIT)


async def test_whoever_goes_away_leaves_nothing_behind(client: pgflow.Client, worker: pgflow.Worker) -> None:
    """Also without closing: `break` is how such loops end."""
    topics = client._core.subscriptions._topics
    handle = await client.dispatch(flows.publish, 1)
    await handle.output(WAIT)
    async for progress in client.subscribe(Progress, last=True):
        assert progress.done == 0
        assert len(topics.inboxes()) == 1
        break
    del progress
    gc.collect()
    assert topics.inboxes() == []
    waiting = asyncio.create_task(client.subscribe(Progress).next())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    del waiting
    gc.collect()
    assert topics.inboxes() == []


async def test_a_cancelled_wait_loses_nothing(client: pgflow.Client, worker: pgflow.Worker) -> None:
    """Even when it was just reading a large body."""
    async with client.subscribe(Progress) as messages, client.subscribe(Progress) as other:
        await client.dispatch(flows.publish, 3, note="x" * 9_000)
        assert await read(other, 3) == [0, 1, 2]
        found: list[int] = []
        for _ in range(3):
            waiting = asyncio.create_task(messages.next())
            await asyncio.sleep(0)
            waiting.cancel()
            try:
                found.append((await waiting).done)  # the body had just been read: too late to cancel
            except asyncio.CancelledError:
                continue
        assert found + await read(messages, 3 - len(found)) == [0, 1, 2]


async def test_threads_read_them_too(dsn: str, worker: pgflow.Worker) -> None:
    begun = threading.Barrier(9)

    def listen(client: pgflow.SyncClient, number: int) -> list[tuple[int, int]]:
        with client.subscribe(Progress, {"n": number % 2}) as messages:
            begun.wait(WAIT)
            found = []
            for progress in messages:
                found.append((progress.done, len(progress.note)))
                if len(found) == 6:
                    break
            with pytest.raises(TimeoutError):
                messages.next(timeout=0)
            return found

    def work() -> None:
        with pgflow.SyncClient(dsn) as client, ThreadPoolExecutor(8) as pool:
            heard = [pool.submit(listen, client, number) for number in range(8)]
            begun.wait(WAIT)
            for n in range(2):
                client.dispatch(flows.publish, 3, note="x" * n, labels={"n": n}).output(WAIT)
                client.dispatch(flows.publish, 3, note="x" * 9_000, labels={"n": n}).output(WAIT)
            for number, found in enumerate(heard):
                small = [(i, number % 2) for i in range(3)]
                assert found.result(WAIT) == small + [(i, 9_000) for i in range(3)]
            with client.subscribe(Progress, {"n": 1}, last=True) as late:
                assert late.next(WAIT).done == 2

    await asyncio.to_thread(work)


async def test_closing_the_sync_client_tells_threads_who_wait(dsn: str) -> None:
    told: list[Any] = []

    def work() -> None:
        with pgflow.SyncClient(dsn) as client:
            messages = client.subscribe(Progress)
            with messages:
                thread = threading.Thread(target=wait, args=(messages,))
                thread.start()
                client.__exit__(None, None, None)
                thread.join(WAIT)
        with pytest.raises(RuntimeError, match="client is closed"):
            client.subscribe(Progress).next(timeout=WAIT)
        assert (
            client._core.subscriptions._work.thread is not None
            and not client._core.subscriptions._work.thread.is_alive()
        )

    def wait(messages: pgflow.SyncSubscription[Progress]) -> None:
        try:
            messages.next()
        except RuntimeError as error:
            told.append(error)

    await asyncio.to_thread(work)
    assert "client is closed" in str(told[0])
