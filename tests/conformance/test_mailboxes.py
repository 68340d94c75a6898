"""Signals and requests: the order of their delivery, whom they wake, who is notified, and what happens to them."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from pgflow.model.commands import Dispatch, Sending, Sent
from pgflow.model.outcomes import Cancelled, Completed, Failed, Suspended
from pgflow.model.rows import Signal
from pgflow.model.writes import RunChanges
from tests.conformance.subject import LATER, Subject
from tests.store.scene import row

Ids = Iterator[UUID]


async def post(store: Subject, ids: Ids, to: UUID, *names: str) -> list[Sending]:
    """Signals sent to a workflow, one after the other, each with its place among them as its body."""
    sent = [Sending(next(ids), to, None, None, name, str(number)) for number, name in enumerate(names)]
    for sending in sent:
        await store.send(sending)
    return sent


async def test_signals_take_their_places_in_the_order_in_which_they_were_sent(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    first, second = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    to_first: list[Sending] = []
    to_second: list[Sending] = []
    for round in range(3):
        to_first += await post(store, ids, first.workflow_id, "a", "b")
        to_second += await post(store, ids, second.workflow_id, "c")
        news = await store.deliver(worker)
        assert [(one["workflow_id"], one["after"], one["mailbox"]) for one in news.arrived] == [
            (first.workflow_id, 2 * round, 2 * round + 2),
            (second.workflow_id, round, round + 1),
        ]
    for key, sent in ((first, to_first), (second, to_second)):
        signals = (await store.picture(key.workflow_id)).signals
        assert [(one["id"], one["number"]) for one in signals] == [(one.id, n) for n, one in enumerate(sent, 1)]


async def test_ids_say_nothing_about_the_order(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    sent = [Sending(next(ids), run.workflow_id, None, None, "a", "1") for _ in range(5)]
    for sending in reversed(sent):
        await store.send(sending)
    (news,) = (await store.deliver(worker)).arrived
    assert [signal.id for signal in news["signals"]] == [sending.id for sending in reversed(sent)]


async def test_who_is_told(store: Subject, ids: Ids) -> None:
    """Whoever delivers, of what it holds itself; of others, their numbers; queues with what has been woken."""
    worker, other = store.worker(), store.worker()
    mine, theirs = await store.running(worker, next(ids)), await store.running(other, next(ids))
    await post(store, ids, mine.workflow_id, "a")
    await post(store, ids, theirs.workflow_id, "a")
    news = await store.deliver(worker)
    assert ([one["workflow_id"] for one in news.arrived], news.owners, news.woken) == (
        [mine.workflow_id],
        {other},
        False,
    )
    await store.write(worker, mine, [], Suspended(None, ("a",), mailbox=1))
    await post(store, ids, mine.workflow_id, "b")
    assert (await store.deliver(worker)).woken is False
    await post(store, ids, mine.workflow_id, "a")
    assert (await store.deliver(worker)).woken is True
    assert (await store.deliver(worker)) == type(news)()


async def test_attention_finds_what_others_have_delivered(store: Subject, ids: Ids) -> None:
    worker, other = store.worker(), store.worker()
    run, quiet = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    gone = await store.running(other, next(ids))
    sent = await post(store, ids, run.workflow_id, "a", "b", "c")
    await post(store, ids, gone.workflow_id, "a")
    await store.deliver(other)
    await store.write(worker, run, [], None, RunChanges([(sent[1].id, "1")]))
    seen = {run.workflow_id: 0, quiet.workflow_id: 0, gone.workflow_id: 0}
    (news,) = await store.attend(worker, seen)
    assert store.arrived(news) == {
        "workflow_id": run.workflow_id,
        "epoch": 1,
        "after": 0,
        "mailbox": 3,
        "cancel": False,
        "pause": False,
        "signals": [Signal(sent[0].id, 1, "a", "0"), Signal(sent[2].id, 3, "c", "2")],
    }
    (news,) = await store.attend(worker, seen | {run.workflow_id: 2})
    assert [signal.number for signal in news.signals] == [3]
    assert await store.attend(worker, seen | {run.workflow_id: 3}) == []


async def test_attention_finds_what_is_asked(store: Subject, ids: Ids) -> None:
    """A request to cancel as long as it is not taken, one to pause, and that it is not to be paused any more."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    seen = {run.workflow_id: 0}

    async def asked(pausing: list[UUID]) -> list[tuple[bool, bool]]:
        return [(news.cancel, news.pause) for news in await store.attend(worker, seen, pausing)]

    assert await asked([]) == []
    await store.operate("pause", run.workflow_id)
    assert await asked([]) == [(False, True)] and await asked([run.workflow_id]) == [(False, True)]
    await store.operate("resume", run.workflow_id)
    assert await asked([]) == [] and await asked([run.workflow_id]) == [(False, False)]
    await store.operate("cancel", run.workflow_id)
    assert await asked([]) == []
    (news,) = (await store.deliver(worker)).arrived
    assert (news["cancel"], news["after"], news["mailbox"]) == (True, 0, 0)
    assert await asked([]) == [(True, False)]
    await store.write(worker, run, [], None, RunChanges(cancels=1))
    assert await asked([]) == []


async def test_a_signal_is_taken_with_the_row_of_its_listen(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run, other = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    sent = await post(store, ids, run.workflow_id, "a", "b")
    (foreign,) = await post(store, ids, other.workflow_id, "a")
    await store.deliver(worker)
    taken = RunChanges([(sent[0].id, "1"), (foreign.id, "1"), (next(ids), "1")])
    assert await store.write(worker, run._replace(epoch=9), [row("1")], None, taken) == "lost"
    assert await store.write(worker, run, [row("1")], None, taken) == "done"
    signals = (await store.picture(run.workflow_id)).signals
    assert [(one["consumed_at"], one["location"]) for one in signals] == [("#0", "1"), (None, None)]
    (left,) = (await store.picture(other.workflow_id)).signals
    assert left["consumed_at"] is None, "another's signal is not taken"


async def test_a_signal_that_does_not_fit_is_set_aside_once(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    sent = await post(store, ids, run.workflow_id, "a", "a")
    await store.deliver(worker)
    await store.write(worker, run, [], None, RunChanges([(sent[0].id, "1")]))
    await store.write(worker, run, [], None, RunChanges(aside=[(sending.id, "no number") for sending in sent]))
    await store.write(worker, run, [], None, RunChanges(aside=[(sent[1].id, "something else")]))
    signals = (await store.picture(run.workflow_id)).signals
    assert [(one["dropped_at"], one["problem"]) for one in signals] == [(False, None), (True, "no number")]
    await store.free(worker)
    (claimed,) = await store.claim_all(worker)
    assert claimed.signals == []


@pytest.mark.parametrize("outcome", [Completed("1"), Cancelled(), Failed("{}")], ids=lambda one: type(one).__name__)
async def test_what_nobody_takes_any_more(store: Subject, ids: Ids, outcome: Completed | Cancelled | Failed) -> None:
    """The mailbox of one that ends is dropped, what comes later as well; a failed one keeps all."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    sent = await post(store, ids, run.workflow_id, "a", "b")
    await store.deliver(worker)
    late = await post(store, ids, run.workflow_id, "a")
    await store.operate("cancel", run.workflow_id)
    await store.write(worker, run, [row("1")], outcome, RunChanges([(sent[0].id, "1")]))
    await store.deliver(worker)
    ends = not isinstance(outcome, Failed)
    found = await store.picture(run.workflow_id)
    assert [(one["dropped_at"], one["number"]) for one in found.signals] == [
        (False, 1),
        (ends, 2),
        (ends, None if ends else 3),
    ]
    assert found.requests == [] and len(late) == 1
    if found.run is not None:
        assert (found.run["cancel_requested"], found.run["status"], found.run["mailbox"]) == (False, "failed", 3)
    answer = await store.send(Sending(next(ids), run.workflow_id, None, None, "a", "1"))
    assert answer == Sent(run.workflow_id, "failed" if not ends else found.workflow["status"], 0)
    assert answer.accepted is not ends


async def test_ends_of_children_take_a_place_in_the_mailbox(store: Subject, ids: Ids) -> None:
    """Behind the signals that are delivered with them; several at once take one."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    children = [next(ids) for _ in range(3)]
    for id in children:
        await store.cross(worker, run, Dispatch(id, store.name("child"), queue=None))
    taken = await store.claim_all(worker)
    for claimed in taken[:2]:
        await store.write(worker, claimed.run, [], Completed("1"))
    await post(store, ids, run.workflow_id, "a")
    (news,) = (await store.deliver(worker)).arrived
    assert (news["after"], news["mailbox"], [signal.number for signal in news["signals"]]) == (0, 2, [1])
    await store.write(worker, run, [], Suspended(None, mailbox=2, awaits_children=True))
    await store.write(worker, taken[2].run, [], Failed("{}"))
    assert (await store.deliver(worker)).woken is True
    found = (await store.picture(run.workflow_id)).run
    assert found is not None and (found["status"], found["mailbox"]) == ("pending", 3)


async def test_who_does_not_wait_for_children_is_not_woken_by_them(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    await store.cross(worker, run, Dispatch(next(ids), store.name("child"), queue=None))
    (claimed,) = await store.claim_all(worker)
    await store.write(worker, run, [], Suspended(LATER, ("a",)))
    await store.write(worker, claimed.run, [], Completed("1"))
    assert (await store.deliver(worker)).woken is False
    found = (await store.picture(run.workflow_id)).run
    assert found is not None and (found["status"], found["mailbox"]) == ("sleeping", 1)


async def test_a_request_to_cancel_ends_what_was_to_start_later(store: Subject, ids: Ids) -> None:
    """At once: nobody has ever had it, and nobody is needed."""
    worker, id = store.worker(), next(ids)
    await store.start(id, run_at=LATER)
    assert await store.operate("cancel", id) is True
    assert await store.claim_all(worker) == []
    assert await store.operate("cancel", id) is False
