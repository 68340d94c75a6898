"""A write that a transactional activity commits is as one of the journal's: the same rows, the same fence."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from pgflow.model.commands import Sending
from pgflow.model.outcomes import Completed, Released
from pgflow.model.rows import EventRow
from pgflow.model.writes import RunChanges
from tests.conformance.subject import LATER, Subject
from tests.store.scene import row

Ids = Iterator[UUID]


async def test_it_comes_to_the_same(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    runs = [await store.running(worker, next(ids), tags='{"k":1}') for _ in range(2)]
    letters = [Sending(next(ids), run.workflow_id, None, None, "a", "1") for run in runs]
    for letter in letters:
        await store.send(letter)
    await store.deliver(worker)
    pending = row("1", None, status="pending", attempts=1, input="[1]", turn_state="2", wake_at=LATER)
    found = []
    for commit, run, letter in zip((store.write, store.transact), runs, letters, strict=True):
        run_changes = RunChanges([(letter.id, "1")], state='{"n":1}', tags='{"k":2}')
        assert await store.write(worker, run, [pending]) == "done"
        assert await commit(worker, run, [row("1", '"out"', attempts=2, seq=1), row("2")], None, run_changes) == "done"
        picture = await store.picture(run.workflow_id)
        (signal,) = picture.signals
        assert (signal["location"], signal["consumed_at"]) == ("1", picture.events[0][8])
        found.append((picture.workflow, picture.run, [event[:8] + event[9:] for event in picture.events]))
    assert found[0] == found[1]


async def test_whoever_has_no_lease_commits_nothing(store: Subject, ids: Ids) -> None:
    worker, other = store.worker(), store.worker()
    run = await store.running(worker, next(ids))
    before = await store.picture(run.workflow_id)
    for who, key in ((other, run), (worker, run._replace(epoch=2))):
        assert await store.transact(who, key, [row("1")], None, RunChanges(state="{}")) == "lost"
    assert await store.picture(run.workflow_id) == before
    await store.write(worker, run, [], Released())
    assert await store.transact(worker, run, [row("1")]) == "lost"


@pytest.mark.parametrize(
    "bad", [row("1", "{"), row("1", '"\x00"'), row("1", attempts=2**40)], ids=["JSON", "NUL", "int"]
)
async def test_what_the_database_does_not_take(store: Subject, ids: Ids, bad: EventRow) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    assert await store.transact(worker, run, [row("2"), bad]) == "refused"
    assert (await store.picture(run.workflow_id)).events == []
    assert await store.transact(worker, run, [row("1")]) == "done"
    assert await store.write(worker, run, [row("2")], Completed("1")) == "done"
