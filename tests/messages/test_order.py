"""Messages of a workflow that has moved to another worker: what the first worker sends late overtakes nothing, and does
not count as the last.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

import pgflow
from pgflow import faults
from pgflow.store.client import topics
from pgflow.store.client.topics import Inbox, Topics
from pgflow.store.database.channels import Notice, message_payload, parse_message
from tests.messages import flows
from tests.messages.flows import More, Progress
from tests.store.scene import Scene
from tests.waiting import until


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    scene = Scene(dsn)
    yield scene
    scene.close()


@pytest.mark.parametrize("point", ["outbox.before_store", "outbox.before_announce"])
async def test_what_the_first_worker_sends_late(scene: Scene, client: pgflow.Client, point: str) -> None:
    """It is held up with one message, before or after that is stored, until another worker has sent the next."""
    dsn = scene.database.dsn
    held, go_on, times = asyncio.Event(), asyncio.Event(), 0

    async def hold() -> None:
        nonlocal times
        times += 1
        if times == 2:  # the first message comes in time
            held.set()
            await go_on.wait()

    async with client.subscribe(Progress) as messages:
        with faults.install({point: hold}):
            async with pgflow.Worker(dsn, workflows=flows.ALL):
                handle = await client.dispatch(flows.on_demand)
                await client.signal(More(1), to=handle.id)
                assert (await messages.next(timeout=30)).done == 0
                await client.signal(More(1), to=handle.id)
                await held.wait()
                # The workflow is asleep; from here on it is taken up by a worker that has nothing of it in memory.
                await until(lambda: scene.one("SELECT status FROM runs") == "sleeping", "sleep")
                scene.do("UPDATE runs SET queue = 'elsewhere', last_worker = NULL")
                async with pgflow.Worker(dsn, workflows=flows.ALL, queues=["elsewhere"]):
                    await client.signal(More(1), to=handle.id)
                    heard = [(await messages.next(timeout=30)).done]
                    if heard == [1]:  # a look at the table has found it before the next one was there
                        assert point == "outbox.before_announce"
                        heard.append((await messages.next(timeout=30)).done)
                    assert heard[-1] == 2
                    go_on.set()
                    await until(lambda: scene.one("SELECT count(*) FROM messages") == 3, "the late message")
                    await client.signal(More(1), to=handle.id)
                    assert (await messages.next(timeout=30)).done == 3
                    await client.signal(More(0), to=handle.id)
                    await handle.output(timeout=30)
    async with client.subscribe(Progress, last=True) as later:
        assert (await later.next(timeout=30)).done == 3


async def test_the_last_is_not_what_was_sent_late(scene: Scene, client: pgflow.Client) -> None:
    insert = "INSERT INTO messages (name, tags, body, workflow_id, place) VALUES ('progress', %s, %s, %s, %s)"
    workflow, other = uuid4(), uuid4()
    for tags, done, id, place in (
        ("{}", 1, workflow, 11),
        ('{"a": 1}', 2, workflow, 13),
        ("{}", 3, workflow, 12),  # late
        ('{"b": 1}', 4, other, 1),
        ('{"b": 1}', 5, None, None),  # a worker's that tells no place
    ):
        scene.do(insert, tags, f'{{"done": {done}}}', id, place)
    for wanted, done in ((None, 5), ({"a": 1}, 2)):
        async with client.subscribe(Progress, tags=wanted, last=True) as messages:
            assert (await messages.next(timeout=30)).done == done
    scene.do("DELETE FROM messages WHERE tags @> '{\"b\": 1}'")
    async with client.subscribe(Progress, last=True) as messages:
        assert (await messages.next(timeout=30)).done == 2


# No database


def begun(all: Topics, name: str = "a") -> Inbox[Any]:
    made: Inbox[Any] = Inbox(name, "{}", 1_000, False, threading.Event())
    all.add(made)
    all.begin(made, 0, None)
    return made


def ids(box: Inbox[Any]) -> list[int]:
    return [notice.id for notice in iter(box.take, None)]


W, V = UUID(int=1), UUID(int=2)


@pytest.mark.parametrize("by_looks", [False, True])
def test_late_ones_are_dropped(by_looks: bool) -> None:
    """Those of the same workflow and kind alone, and those alone that tell their places."""
    all = Topics()
    a, b = begun(all), begun(all, "b")
    notices = [
        Notice(1, "a", "{}", "{}", W, 10),
        Notice(2, "a", "{}", "{}", W, 30),
        Notice(3, "a", "{}", "{}", W, 20),
        Notice(4, "b", "{}", "{}", W, 20),
        Notice(5, "a", "{}", "{}", V, 5),
        Notice(6, "a", "{}", "{}", W, None),
        Notice(7, "a", "{}", "{}", W, 31),
    ]
    if by_looks:
        look = all.ask()
        assert look is not None
        all.find(look, 7, notices)
    else:
        for notice in notices:
            all.hear(notice)
    assert ids(a) == [1, 2, 5, 6, 7]
    assert ids(b) == [4]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "MOST_SENDERS", 3)
    all = Topics()
    begun(all)
    for number in range(1, 20):
        all.hear(Notice(number, "a", "{}", "{}", UUID(int=number), 1))
    assert len(all._places) == 3


@pytest.mark.parametrize("tags", ["{}", '{"a":1}', '{"a":"}"}'])
@pytest.mark.parametrize("body", [None, '{"x":1}', '"pgflow.from"'])
def test_a_payload_tells_sender_and_place(tags: str, body: str | None) -> None:
    """And those who do not know of that see tags that hold the given ones."""
    for sender in ((None, None), (W, 7 << 32 | 9)):
        notice = Notice(7, "some name", tags, body, *sender)
        assert parse_message(message_payload(notice)) == notice
