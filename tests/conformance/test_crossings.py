"""What one workflow does to another: children, unique ones, signals, and the question how others have ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.outcomes import Completed, Failed, Released, Suspended
from pgflow.model.rows import RunKey
from tests.conformance.subject import LATER, Subject

Ids = Iterator[UUID]


def child(store: Subject, id: UUID, name: str = "child", **values: Any) -> Dispatch:
    """A command to start a child, in its parent's queue and as urgent."""
    return Dispatch(id, store.name(name), **{"queue": None, "priority": None, **values})


async def test_a_child(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids), priority=7)
    id = next(ids)
    fate = await store.cross(worker, run, child(store, id, input='{"a": 1}', tags='{"k":1}', detached=True))
    assert fate == ("done", Dispatched(id, store.name("child"), True))
    found = await store.picture(id)
    assert found.run is not None and (found.run["priority"], found.run["status"]) == (7, "pending")
    assert found.workflow["detached"] is True and found.workflow["tags"] == {"k": 1}
    (claimed,) = await store.claim_all(worker)
    assert (claimed.parent_id, claimed.input, claimed.seed) == (run.workflow_id, '{"a": 1}', id)
    below = next(ids)
    await store.cross(worker, claimed.run, child(store, below))
    assert (await store.picture(below)).workflow["root_id"] == run.workflow_id


async def test_a_child_is_started_once(store: Subject, ids: Ids) -> None:
    """Also after it has ended, and by whatever it is asked for again; another's id is told with that one's name."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    id = next(ids)
    command = child(store, id)
    await store.cross(worker, run, command)
    again = ("done", Dispatched(id, store.name("child"), False))
    assert await store.cross(worker, run, command._replace(input='{"other":1}')) == again
    assert await store.cross(worker, run, command._replace(name=store.name("other"))) == again
    assert await store.cross(worker, run, command._replace(unique=True)) == again
    (claimed,) = await store.claim_all(worker)
    assert claimed.input == "{}"
    await store.write(worker, claimed.run, [], Completed("1"))
    for unique in (False, True):
        assert await store.cross(worker, run, command._replace(unique=unique)) == again
    assert (await store.picture(id)).run is None


async def test_where_and_when_a_child_starts(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids), priority=3)
    later, elsewhere, urgent = [next(ids) for _ in range(3)]
    await store.cross(worker, run, child(store, later, run_at=LATER))
    await store.cross(worker, run, child(store, elsewhere, queue="elsewhere " + store.mark))
    await store.cross(worker, run, child(store, urgent, priority=9))
    assert [claimed.workflow_id for claimed in await store.claim_all(worker)] == [urgent]
    found = (await store.picture(later)).run
    assert found is not None and (found["wake_at"], found["priority"]) == (LATER.isoformat(), 3)
    assert [found.workflow_id for found in await store.claim_all(worker, queue="elsewhere " + store.mark)] == [
        elsewhere
    ]


async def test_a_unique_child_that_another_one_stands_for(store: Subject, ids: Ids) -> None:
    """Its end is told to whoever found it; with other tags, or another name, it is another one."""
    worker = store.worker()
    first, second = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    holder, other = next(ids), next(ids)
    command = child(store, holder, tags='{"k": 1, "l": "x"}', unique=True)
    assert (await store.cross(worker, first, command)).answer.created
    twin = command._replace(id=other, tags='{"l":"x","k":1}')
    found = ("done", Dispatched(holder, store.name("child"), False))
    assert await store.cross(worker, second, twin) == found
    assert await store.cross(worker, second, twin) == found
    for values in (
        {"tags": '{"k": 1}'},
        {"tags": '{"k": 1.0, "l": "x"}'},
        {"name": store.name("other")},
        {"unique": False},
    ):
        assert (await store.cross(worker, second, twin._replace(id=next(ids), **values))).answer.created
    run = (await store.picture(holder)).run
    assert run is not None and run["waiters"] == [second.workflow_id]
    (claimed,) = [one for one in await store.claim_all(worker) if one.workflow_id == holder]
    await store.write(worker, claimed.run, [], Completed("1"))
    told = [(await store.picture(key.workflow_id)).requests for key in (first, second)]
    assert told == [["child"], ["child"]]
    assert (await store.cross(worker, second, twin)).answer == Dispatched(other, store.name("child"), True)


async def test_a_parent_that_finds_its_own_child_is_told_once(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    holder = next(ids)
    command = child(store, holder, unique=True)
    await store.cross(worker, run, command)
    await store.cross(worker, run, command._replace(id=next(ids)))
    (claimed,) = await store.claim_all(worker)
    await store.write(worker, claimed.run, [], Completed("1"))
    assert (await store.picture(run.workflow_id)).requests == ["child"]


async def test_a_failed_one_frees_its_key(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    first = next(ids)
    run = await store.running(worker, first, unique=True)
    second = next(ids)
    assert (await store.start(second, unique=True)) == Dispatched(first, store.name(), False)
    await store.write(worker, run, [], Failed("{}"))
    assert (await store.start(second, unique=True)).created
    assert (await store.start(next(ids), unique=True)).id == second


async def test_several_that_start_the_same_at_once(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    runs = [await store.running(worker, next(ids)) for _ in range(4)]
    started = [next(ids) for _ in runs]
    crossings = [store.new_crossing(run, child(store, id, unique=True)) for run, id in zip(runs, started, strict=True)]
    answers = [fate.answer for fate in await store.hand_over(worker, *crossings)]
    assert {answer.id for answer in answers} == {started[0]}
    assert [answer.created for answer in answers] == [True, False, False, False]
    holder = (await store.picture(started[0])).run
    assert holder is not None and holder["waiters"] == [run.workflow_id for run in runs[1:]]


async def test_a_signal_to_a_workflow(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    sender, receiver = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    command = Sending(next(ids), receiver.workflow_id, None, None, "hello", '{"n": 1}')
    for _ in range(2):
        fate = await store.cross(worker, sender, command)
        assert fate == ("done", Sent(receiver.workflow_id, None, worker))
    (signal,) = (await store.picture(receiver.workflow_id)).signals
    assert (signal["id"], signal["body"], signal["sender_id"], signal["number"]) == (
        command.id,
        '{"n": 1}',
        sender.workflow_id,
        None,
    )
    news = await store.deliver(worker)
    assert [(one["workflow_id"], [signal.id for signal in one["signals"]]) for one in news.arrived] == [
        (receiver.workflow_id, [command.id])
    ]
    assert await store.cross(worker, sender, command) == fate, "sent twice is sent once, also when it has arrived"


async def test_signals_nobody_receives(store: Subject, ids: Ids) -> None:
    """Nobody of that id or with these tags, one that has ended; a failed one keeps them."""
    worker = store.worker()
    sender = await store.running(worker, next(ids))
    ended, failed = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    await store.write(worker, ended, [], Completed("1"))
    await store.write(worker, failed, [], Failed("{}"))
    nobody = next(ids)
    for to, answer in (
        (nobody, Sent(None, None, 0)),
        (ended.workflow_id, Sent(ended.workflow_id, "completed", 0)),
        (failed.workflow_id, Sent(failed.workflow_id, "failed", 0)),
    ):
        found = await store.cross(worker, sender, Sending(next(ids), to, None, None, "hello", "1"))
        assert found == ("done", answer)
    assert [len((await store.picture(key.workflow_id)).signals) for key in (ended, failed)] == [0, 1]
    missing = Sending(next(ids), None, store.name("nobody"), "{}", "hello", "1")
    assert await store.cross(worker, sender, missing) == ("done", Sent(None, None, 0))


async def test_an_id_that_is_anothers(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    sender, other = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    command = Sending(next(ids), other.workflow_id, None, None, "hello", "1")
    await store.cross(worker, sender, command)
    for again in (command._replace(name="bye"), command._replace(workflow_id=sender.workflow_id)):
        fate = await store.cross(worker, sender, again)
        assert fate == ("done", Sent(other.workflow_id, None, worker, "hello"))


async def test_a_signal_finds_its_receiver_by_tags(store: Subject, ids: Ids) -> None:
    """The oldest live one whose tags contain these, by their values now; else a failed one; sent again, the same."""
    worker = store.worker()
    sender = await store.running(worker, next(ids), name="other")
    failed = await store.running(worker, next(ids), tags='{"k": 1}')
    await store.write(worker, failed, [], Failed("{}"))

    def by(tags: str) -> Sending:
        return Sending(next(ids), None, store.name(), tags, "hello", "1")

    found = await store.cross(worker, sender, by('{"k": 1}'))
    assert found.answer == Sent(failed.workflow_id, "failed", 0)
    old, young = next(ids), next(ids)
    await store.start(old, tags='{"k": 1.0, "l": "x"}')
    await store.start(young, tags='{"k": 1}')
    first = by('{"k": 1}')
    assert (await store.cross(worker, sender, first)).answer.receiver == old
    assert (await store.cross(worker, sender, by('{"l": "x"}'))).answer.receiver == old
    assert (await store.cross(worker, sender, by('{"k": "1"}'))).answer.receiver is None
    (claimed,) = [one for one in await store.claim_all(worker) if one.workflow_id == old]
    await store.write(worker, claimed.run, [], Completed("1"))
    assert (await store.cross(worker, sender, by('{"k": 1}'))).answer.receiver == young
    assert (await store.cross(worker, sender, first)).answer.receiver == old


async def test_who_has_no_lease_does_nothing_to_others(store: Subject, ids: Ids) -> None:
    worker, other = store.worker(), store.worker()
    run = await store.running(worker, next(ids))
    receiver = await store.running(worker, next(ids))

    def commands() -> list[Dispatch | Sending]:
        return [
            child(store, next(ids)),
            child(store, next(ids), unique=True),
            Sending(next(ids), receiver.workflow_id, None, None, "hello", "1"),
        ]

    await store.write(worker, released := await store.running(worker, next(ids), name="other"), [], Released())
    for who, key in (
        (other, run),
        (worker, run._replace(epoch=3)),
        (worker, released),
        (worker, RunKey(str(next(ids)), 1)),
    ):
        crossings = [store.new_crossing(key, command) for command in commands()]
        assert [fate.what for fate in await store.hand_over(who, *crossings)] == ["lost"] * 3
    assert (await store.picture(receiver.workflow_id)).signals == []
    assert [claimed.workflow_id for claimed in await store.claim_all(worker)] == [released.workflow_id]


@pytest.mark.parametrize("text", ["{", '"\x00"', "NaN"])
async def test_what_the_database_does_not_take(store: Subject, ids: Ids, text: str) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    good, bad = next(ids), next(ids)
    crossings = [
        store.new_crossing(run, command)
        for command in (
            child(store, good),
            child(store, bad, input=text),
            Sending(next(ids), run.workflow_id, None, None, "hello", text),
            Sending(next(ids), run.workflow_id, None, None, "hello", "1"),
        )
    ]
    fates = [fate.what for fate in await store.hand_over(worker, *crossings)]
    assert fates == ["done", "refused", "refused", "done"]
    assert [claimed.workflow_id for claimed in await store.claim_all(worker)] == [good]
    assert [signal["body"] for signal in (await store.picture(run.workflow_id)).signals] == ["1"]


async def test_one_workflows_signals_stay_in_the_order_of_their_sending(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    sender, receiver = await store.running(worker, next(ids)), await store.running(worker, next(ids))
    sent = [Sending(next(ids), receiver.workflow_id, None, None, "hello", str(number)) for number in range(20)]
    await store.hand_over(worker, *[store.new_crossing(sender, sending) for sending in sent])
    signals = (await store.picture(receiver.workflow_id)).signals
    assert [signal["body"] for signal in signals] == [str(number) for number in range(20)]


async def test_how_others_have_ended(store: Subject, ids: Ids) -> None:
    """Those that have; None for those that there are not; the others go on."""
    worker = store.worker()
    done, failed, asleep, going = [await store.running(worker, next(ids)) for _ in range(4)]
    await store.write(worker, done, [], Completed('{"x": 1}'))
    await store.write(worker, failed, [], Failed('{"type":"E"}'))
    await store.write(worker, asleep, [], Suspended(LATER))
    nobody = next(ids)
    asked = [key.workflow_id for key in (done, failed, asleep, going)] + [nobody]
    assert dict(await store.ask(worker, asked)) == {
        done.workflow_id: Standing(done.workflow_id, store.name(), "completed", '{"x": 1}', None),
        failed.workflow_id: Standing(failed.workflow_id, store.name(), "failed", None, '{"type":"E"}'),
        nobody: None,
    }
    assert dict(await store.ask(worker, [])) == {}
