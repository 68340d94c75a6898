"""How a run leaves: asleep, handed back, paused, failed or ended, and what arrives while that is decided."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from pgflow.model.commands import Dispatch, Sending
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome, Released, Suspended
from pgflow.model.writes import RunChanges
from tests.conformance.subject import LATER, Subject
from tests.store.scene import row

Ids = Iterator[UUID]

PAST = datetime(2001, 1, 1, tzinfo=UTC)


async def test_ends(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    for outcome, status, output, error in (
        (Completed('{"x": 1}'), "completed", '{"x": 1}', None),
        (Failed('{"type": "E"}'), "failed", None, '{"type": "E"}'),
        (Cancelled(), "cancelled", None, None),
    ):
        run = await store.running(worker, next(ids))
        assert await store.write(worker, run, [row("1")], outcome) == "done"
        found = await store.picture(run.workflow_id)
        workflow = found.workflow
        assert (workflow["status"], workflow["output"], workflow["error"]) == (status, output, error)
        assert workflow["completed_at"] == found.events[0][8] is not None
        assert (found.run is None) == (status != "failed")


async def test_a_failed_run_stays(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids), unique=True)
    await store.write(worker, run, [], Failed("{}", ("1", "2,a10"), "3"))
    found = (await store.picture(run.workflow_id)).run
    assert found is not None
    assert (found["status"], found["wake_at"], found["worker"], found["last_worker"]) == ("failed", None, None, None)
    assert (found["reset"], found["fork_before"]) == (["1", "2,a10"], "3")
    assert (found["unique_key"], found["freed_key"]) == (False, True)
    assert await store.claim_all(worker) == []


STOPS: dict[str, tuple[Outcome, str, str | None]] = {
    "until later": (Suspended(LATER), "sleeping", LATER.isoformat()),
    "until the past": (Suspended(PAST), "sleeping", "due"),
    "for ever": (Suspended(None), "sleeping", None),
    "for signals": (Suspended(LATER, ("b", "a")), "sleeping", LATER.isoformat()),
    "for children": (Suspended(None, awaits_children=True), "sleeping", None),
    "handed back": (Released(), "pending", "due"),
}


@pytest.mark.parametrize("which", STOPS)
async def test_stops(store: Subject, ids: Ids, which: str) -> None:
    outcome, status, wake_at = STOPS[which]
    worker = store.worker()
    run = await store.running(worker, next(ids))
    assert await store.write(worker, run, [], outcome) == "done"
    found = await store.picture(run.workflow_id)
    assert found.run is not None and found.workflow["status"] is None
    assert (found.run["status"], found.run["wake_at"], found.run["worker"]) == (status, wake_at, None)
    assert found.run["last_worker"] == (worker if isinstance(outcome, Suspended) else None)
    waiting = sorted(outcome.waiting_for) if isinstance(outcome, Suspended) else []
    assert (found.run["waiting_for"], found.run["awaits_children"]) == (waiting, which == "for children")


ASKED = {
    "nothing": (),
    "cancel": ("cancel", "deliver"),
    "cancel, not delivered": ("cancel",),
    "pause": ("pause",),
    "pause, resume": ("pause", "resume"),
    "pause, cancel": ("pause", "cancel", "deliver"),
    "cancel, pause": ("cancel", "deliver", "pause"),
    "signal": ("signal", "deliver"),
    "signal, not delivered": ("signal",),
    "signal, pause": ("signal", "deliver", "pause"),
}


async def ask(store: Subject, worker: int, id: UUID, ids: Ids, asked: tuple[str, ...]) -> None:
    for what in asked:
        if what == "signal":
            await store.send(Sending(next(ids), id, None, None, "hello", "1"))
        elif what == "deliver":
            await store.deliver(worker)
        else:
            assert await store.operate(what, id) is True


COMES_TO: dict[str, tuple[str, ...]] = {
    # asked: asleep, asleep having seen the mailbox, handed back, asleep with the request taken
    "nothing": ("sleeping", "sleeping", "pending", "sleeping"),
    "cancel": ("pending", "pending", "pending", "sleeping"),
    "cancel, not delivered": ("sleeping", "sleeping", "pending", "sleeping"),
    "pause": ("paused", "paused", "paused", "paused"),
    "pause, resume": ("sleeping", "sleeping", "pending", "sleeping"),
    "pause, cancel": ("pending", "pending", "pending", "sleeping"),
    "cancel, pause": ("pending", "pending", "pending", "paused"),
    "signal": ("pending", "sleeping", "pending", "pending"),
    "signal, not delivered": ("sleeping", "sleeping", "pending", "sleeping"),
    "signal, pause": ("paused", "paused", "paused", "paused"),
}


@pytest.mark.parametrize("which", ASKED)
async def test_what_is_asked_meanwhile(store: Subject, ids: Ids, which: str) -> None:
    """It is heeded at once, or stays for when the workflow goes on."""
    worker = store.worker()
    outcomes = (
        (Suspended(LATER), None),
        (Suspended(LATER, mailbox=1), None),
        (Released(), None),
        (Suspended(LATER), RunChanges(cancels=5)),
    )
    found = []
    flags = []
    for outcome, run_changes in outcomes:
        run = await store.running(worker, next(ids), queue=str(next(ids)))
        await ask(store, worker, run.workflow_id, ids, ASKED[which])
        assert await store.write(worker, run, [], outcome, run_changes) == "done"
        after = (await store.picture(run.workflow_id)).run
        assert after is not None
        found.append(after["status"])
        flags.append((after["cancel_requested"], after["pause_requested"]))
    assert tuple(found) == COMES_TO[which]
    delivered = "cancel" in ASKED[which] and "deliver" in ASKED[which]
    left = (delivered, which == "cancel, pause")
    assert flags == [left, left, left, (False, False)]


@pytest.mark.parametrize("which", ASKED)
async def test_what_is_asked_of_one_that_sleeps(store: Subject, ids: Ids, which: str) -> None:
    worker = store.worker()
    found = {}
    for names in ((), ("hello",), ("other",)):
        run = await store.running(worker, next(ids), queue=str(next(ids)))
        await store.write(worker, run, [], Suspended(LATER, names))
        await ask(store, worker, run.workflow_id, ids, ASKED[which])
        after = (await store.picture(run.workflow_id)).run
        assert after is not None
        found[names] = after["status"], after["wake_at"] == "due", after["last_worker"]
    woken = "deliver" in ASKED[which] and "cancel" in ASKED[which]
    asleep = ("pending", True, worker) if woken else ("sleeping", False, worker)
    paused = ("paused", False, None)
    expected: dict[str, Any] = {
        "pause": paused,
        "cancel, pause": ("pending", True, None),
        "pause, cancel": ("pending", True, None),
        "pause, resume": ("pending", True, None),
        "signal, pause": paused,
    }
    assert found[()] == found[("other",)] == expected.get(which, asleep)
    heard = {"signal": ("pending", True, worker), "signal, pause": ("paused", True, None)}
    assert found[("hello",)] == heard.get(which, found[()])


async def test_a_request_is_taken_with_the_write_that_says_so(store: Subject, ids: Ids) -> None:
    """It goes on to the children that are not detached, and are not ended; the run goes on."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    children = [next(ids) for _ in range(4)]
    for id in children:
        await store.cross(worker, run, Dispatch(id, store.name("child"), detached=id == children[1], queue=None))
    ended, failed = [
        claimed.run for claimed in await store.claim_all(worker, names=["child"]) if claimed.workflow_id in children[2:]
    ]
    await store.write(worker, ended, [], Completed("1"))
    await store.write(worker, failed, [], Failed("{}"))
    await ask(store, worker, run.workflow_id, ids, ("cancel", "deliver"))
    assert (
        await store.write(worker, run, [row("1", None, status="cancelled", seq=3)], None, RunChanges(cancels=3))
        == "done"
    )
    found = await store.picture(run.workflow_id)
    assert found.run is not None and found.run["cancel_requested"] is False and found.run["status"] == "running"
    assert found.workflow["cancellations"] == [3]
    assert [(await store.picture(id)).requests for id in children] == [["cancel"], [], [], []]
    assert await store.write(worker, run, [], Cancelled()) == "done"


async def test_the_end_is_told_to_the_parent_and_once(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    children = [next(ids) for _ in range(3)]
    for id in children:
        await store.cross(worker, run, Dispatch(id, store.name("child"), queue=None))
    outcomes: list[Outcome] = [Completed("1"), Failed("{}"), Cancelled()]
    for claimed, outcome in zip(await store.claim_all(worker), outcomes, strict=True):
        await store.write(worker, claimed.run, [], outcome)
    assert (await store.picture(run.workflow_id)).requests == ["child"] * 3
    news = await store.deliver(worker)
    assert [(one["workflow_id"], one["after"], one["mailbox"]) for one in news.arrived] == [(run.workflow_id, 0, 1)]
    assert (await store.picture(run.workflow_id)).requests == []


async def test_a_paused_workflow_is_nobodys_until_it_is_resumed(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    id = next(ids)
    await store.start(id, run_at=LATER)
    assert await store.operate("pause", id) is True and await store.operate("pause", id) is True
    assert await store.claim_all(worker) == []
    assert await store.operate("resume", id) is True and await store.operate("resume", id) is False
    found = (await store.picture(id)).run
    assert found is not None and (found["status"], found["wake_at"]) == ("pending", LATER.isoformat())
    run = await store.running(worker, next(ids))
    await store.write(worker, run, [], Completed("1"))
    assert [await store.operate(what, run.workflow_id) for what in ("cancel", "pause", "resume")] == [False] * 3


async def test_what_a_worker_held_is_free_again(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    runs = [await store.running(worker, next(ids)) for _ in range(3)]
    await store.operate("pause", runs[0].workflow_id)
    await ask(store, worker, runs[1].workflow_id, ids, ("cancel", "deliver", "pause"))
    await store.free(worker)
    found = [(await store.picture(run.workflow_id)).run for run in runs]
    assert [one and one["status"] for one in found] == ["paused", "pending", "pending"]
    assert [one and (one["worker"], one["last_worker"], one["pause_requested"]) for one in found] == [
        (None, None, False),
        (None, None, True),
        (None, None, False),
    ]
    assert [claimed.epoch for claimed in await store.claim_all(worker)] == [2, 2]
