"""Claims: what is taken, in which order, and with what."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from pgflow.model.commands import Sending
from pgflow.model.outcomes import Completed, Failed, Released, Suspended
from pgflow.model.writes import RunChanges
from tests.conformance.subject import LATER, Subject, hours
from tests.store.scene import loop_row, row

Ids = Iterator[UUID]


async def test_a_first_claim(store: Subject, ids: Ids) -> None:
    worker, id = store.worker(), next(ids)
    await store.start(id, tags='{"k": 1}', input='{"a": [1.0]}')
    (claimed,) = await store.claim_all(worker)
    assert store.claimed(claimed) == {
        "workflow_id": id,
        "name": store.name(),
        "queue": store.queue,
        "epoch": 1,
        "input": '{"a": [1.0]}',
        "tags": {"k": 1},
        "parent_id": None,
        "seed": id,
        "mailbox": 0,
        "cancel_requested": False,
        "signals": [],
        "state": None,
        "tags_now": None,
        "warm": False,
        "events": [],
        "cancellations": [],
    }
    assert claimed.created_at <= claimed.now
    assert await store.claim_all(worker) == []


async def test_what_another_one_has_left(store: Subject, ids: Ids) -> None:
    """History, state, tags, signals that were not taken, a request to cancel: all that was committed."""
    first, second, id = store.worker(), store.worker(), next(ids)
    run = await store.running(first, id, tags='{"k": 1}')
    rows = [row(location, input="[1]", seq=1) for location in ("a10", "2", "1,1", "1.1")]
    rows += [loop_row("3"), row("4", kind="removed", input='{"kind":"activity"}')]
    await store.write(first, run, rows, None, RunChanges(state='{"n":1}', tags='{"k":2}', cancels=4))
    letters = [Sending(next(ids), id, None, None, name, "1") for name in ("a", "b", "c")]
    for letter in letters:
        await store.send(letter)
    await store.operate("cancel", id)
    await store.deliver(second)
    await store.write(first, run, [], Suspended(None, mailbox=3), RunChanges([(letters[1].id, "2")]))
    (claimed,) = await store.claim_all(second)
    assert (claimed.epoch, claimed.warm, claimed.mailbox, claimed.cancel_requested) == (2, False, 3, True)
    assert [event.location for event in claimed.events] == ["1,1", "1.1", "2", "3", "4", "a10"]
    assert [event.input for event in claimed.events] == [None, None, None, None, '{"kind":"activity"}', None]
    assert [(signal.name, signal.number) for signal in claimed.signals] == [("a", 1), ("c", 3)]
    assert (claimed.state, claimed.tags, claimed.tags_now) == ('{"n":1}', {"k": 1}, {"k": 2})
    assert list(claimed.cancellations) == [4]
    await store.free(second)
    (claimed,) = await store.claim_all(first, inputs=True)
    assert [event.input for event in claimed.events] == ["[1]"] * 3 + [None, '{"kind":"activity"}', "[1]"]


async def test_who_had_it_last_reads_nothing_again(store: Subject, ids: Ids) -> None:
    worker, other, id = store.worker(), store.worker(), next(ids)
    run = await store.running(worker, id, input='{"a":1}')
    past = store.told
    for number in range(2):
        await store.write(worker, run, [row(str(number + 1))], Suspended(past[0] if past else None, mailbox=-1))
        (claimed,) = await store.claim_all(worker)
        assert (claimed.warm, claimed.events, claimed.input) == (True, [], "{}")
        run = claimed.run
    await store.write(worker, run, [], Suspended(past[0]))
    (claimed,) = await store.claim_all(other)
    assert (claimed.warm, len(claimed.events), claimed.input) == (False, 2, '{"a":1}')
    await store.write(other, claimed.run, [], Released())
    (claimed,) = await store.claim_all(other)
    assert (claimed.warm, len(claimed.events), claimed.input) == (False, 2, '{"a":1}')


async def test_what_is_not_taken(store: Subject, ids: Ids) -> None:
    """What is due later, sleeps for ever, is paused, failed, has ended, is another's, of another queue or name."""
    worker = store.worker()
    await store.start(next(ids), run_at=LATER)
    for outcome in (Suspended(hours(1)), Suspended(None, ("a",)), Failed("{}"), Completed("1")):
        await store.write(worker, await store.running(worker, next(ids)), [], outcome)
    await store.start(paused := next(ids))
    await store.operate("pause", paused)
    await store.running(store.worker(), next(ids))
    await store.start(next(ids), "unknown")
    await store.start(next(ids), queue="elsewhere " + store.mark)
    assert await store.claim_all(worker) == []
    assert await store.claim_all(worker, names=[]) == []


async def test_the_most_urgent_first_and_no_more_than_there_is_room_for(store: Subject, ids: Ids) -> None:
    """And of those that are as urgent, the oldest."""
    worker = store.worker()
    priorities = [0, 5, -3, 5, 2**31 - 1, 0, -(2**31)]
    names = ["flow", "other", "flow", "flow", "other", "other", "flow"]
    started = [next(ids) for _ in priorities]
    for id, priority, name in zip(started, priorities, names, strict=True):
        await store.start(id, name, priority=priority)
    taken: list[int] = []
    while found := await store.claim_all(worker, 2):
        taken.append(len(found))
        for claimed in found:
            store.order.append(started.index(claimed.workflow_id))
    assert taken == [2, 2, 2, 1]
    assert [set(store.order[at : at + 2]) for at in (0, 2, 4, 6)] == [{4, 1}, {3, 0}, {5, 2}, {6}]


async def test_each_is_taken_by_one(store: Subject, ids: Ids) -> None:
    workers = [store.worker() for _ in range(3)]
    for _ in range(30):
        await store.start(next(ids))
    found = [claimed.workflow_id for worker in workers for claimed in await store.claim_all(worker, 11)]
    assert len(found) == len(set(found)) == 30


async def test_the_epoch_grows_with_each_claim(store: Subject, ids: Ids) -> None:
    worker, id = store.worker(), next(ids)
    run = await store.running(worker, id)
    for epoch in range(2, 6):
        await store.write(worker, run, [], Released())
        (claimed,) = await store.claim_all(worker)
        run = claimed.run
        assert claimed.epoch == epoch
