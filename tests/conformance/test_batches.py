"""The journal: what a write leaves in history, and whose writes are refused."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from pgflow.model.outcomes import Completed, Released, Suspended
from pgflow.model.rows import RunKey
from pgflow.model.writes import RunChanges
from tests.conformance.subject import LATER, Subject
from tests.store.scene import loop_row, row

Ids = Iterator[UUID]


async def test_every_column_arrives(store: Subject, ids: Ids) -> None:
    id, worker = next(ids), store.worker()
    run = await store.running(worker, id)
    full = row(
        "1,a10.2",
        '{"b": 1, "a": [1.0, "\\u001f ü"]}',
        iteration=3,
        seq=7,
        version=2,
        name='na"me\\',
        attempts=4,
        input='{"kind":"activity"}',
        error='{"type":"X"}',
        wake_at=LATER,
        turn_state='"s"',
        turn_now=LATER,
        loop_progress=9,
        loop_state="[]",
        turn_seq=6,
    )
    bare = row("2", None, name="", status="pending")
    assert await store.write(worker, run, [bare, full]) == "done"
    found = (await store.picture(id)).events
    moment = LATER.isoformat()
    assert found == [
        (*full[:8], "#0", *full[8:11], moment, '"s"', moment, 9, "[]", 6, None),
        (*bare[:8], "#0", *bare[8:], None),
    ]


async def test_what_a_later_row_makes_of_an_earlier_one(store: Subject, ids: Ids) -> None:
    """It gives what it says, keeps what only the earlier one knew; one that has ended stays."""
    id, worker = next(ids), store.worker()
    run = await store.running(worker, id)
    steps = [
        row("1", None, status="pending", attempts=2, input="[1]", turn_state="1", turn_now=LATER, turn_seq=3),
        row("1", None, status="pending", attempts=1, wake_at=LATER),  # older, though it comes later
        row("1", '"ended"', name="renamed", attempts=3, seq=4),
        row("1", '"again"', attempts=4, seq=5),
        row("1", None, status="pending", attempts=5),
    ]
    seen = []
    for step in steps:
        assert await store.write(worker, run, [step]) == "done"
        (event,) = (await store.picture(id)).events
        seen.append(event)
    pending, older, ended, *after = seen
    assert pending[6:10] == ("pending", 2, "#0", "[1]") and older == pending
    assert ended[2:3] + ended[5:11] == (4, "renamed", "completed", 3, "#2", "[1]", '"ended"')
    assert ended[13:15] == ("1", LATER.isoformat()) and ended[17] == 3
    assert after == [ended, ended]


async def test_a_row_that_stays_pending_is_as_old_as_it_was(store: Subject, ids: Ids) -> None:
    id, worker = next(ids), store.worker()
    run = await store.running(worker, id)
    for attempts in (1, 2):
        await store.write(worker, run, [row("1", None, status="pending", attempts=attempts)])
    (event,) = (await store.picture(id)).events
    assert event[6:9] == ("pending", 2, "#0")


PAIRS = {
    "attempts are counted down": [row("1", None, status="pending", attempts=n, error=f'"{n}"') for n in (2, 1)],
    "progress goes back": [loop_row(loop_progress=20, loop_state="20"), loop_row()],
    "progress goes on": [loop_row(), loop_row(loop_progress=20, loop_state="20")],
    "progress is not told": [loop_row(loop_progress=20, loop_state="20"), loop_row(loop_progress=None, loop_state="7")],
    "state is not told": [loop_row(loop_progress=20, loop_state="20"), loop_row(loop_progress=20, loop_state=None)],
    "ended, pending": [row("1", '"first"'), row("1", None, status="pending")],
    "ended, ended": [row("1", '"first"'), row("1", '"second"')],
    "pending, ended": [row("1", None, status="pending", attempts=0, turn_state="5", wake_at=LATER), row("1", '"x"')],
    "three": [row("1", None, status="pending", attempts=n, input=text) for n, text in ((1, "1"), (3, None), (2, "2"))],
}


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize("which", PAIRS)
async def test_rows_of_one_location_together_come_to_the_same(
    store: Subject, ids: Ids, which: str, together: bool
) -> None:
    """Whether the journal folds them into one or writes them one after the other."""
    first, second, worker = next(ids), next(ids), store.worker()
    apart, joined = await store.running(worker, first), await store.running(worker, second)
    for step in PAIRS[which]:
        await store.write(worker, apart, [step])
    if together:
        assert await store.write(worker, joined, PAIRS[which]) == "done"
    else:
        fates = await store.hand_over(worker, *[store.new_write(joined, [step]) for step in PAIRS[which]])
        assert {fate.what for fate in fates} == {"done"}
    (expected,), (found,) = [(await store.picture(id)).events for id in (first, second)]
    assert found[:8] + found[9:] == expected[:8] + expected[9:]


async def test_writes_are_told_in_the_order_in_which_a_run_hands_them_over(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    runs = [await store.running(worker, next(ids)) for _ in range(3)]
    writes = [store.new_write(run, [row(str(step))]) for step in range(1, 6) for run in runs]
    fates = await store.hand_over(worker, *writes)
    assert {fate.what for fate in fates} == {"done"}
    for run in runs:
        mine = [write for write in writes if write.run == run]
        assert [write for write in store.order if write in mine] == mine


async def test_a_write_of_nothing_is_committed(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    assert await store.write(worker, run) == "done"


async def test_who_has_no_lease_changes_nothing(store: Subject, ids: Ids) -> None:
    """Another epoch, another worker, a workflow that sleeps, that has ended, that there is not."""
    worker, other = store.worker(), store.worker()
    run = await store.running(worker, next(ids))
    sleeping, ended, freed = [await store.running(worker, next(ids)) for _ in range(3)]
    assert await store.write(worker, sleeping, [], Suspended(LATER)) == "done"
    assert await store.write(worker, ended, [], Completed("1")) == "done"
    assert await store.write(worker, freed, [], Released()) == "done"
    before = [await store.picture(key.workflow_id) for key in (run, sleeping, ended, freed)]
    strangers = [
        (worker, RunKey(run.workflow, run.epoch + 1)),
        (worker, RunKey(run.workflow, run.epoch - 1)),
        (other, run),
        (worker, sleeping),
        (worker, ended),
        (worker, freed),
        (worker, RunKey(str(next(ids)), 1)),
    ]
    for who, key in strangers:
        assert await store.write(who, key, [row("1")], Completed("2"), RunChanges(state="{}", tags="{}")) == "lost"
    assert [await store.picture(key.workflow_id) for key in (run, sleeping, ended, freed)] == before


async def test_a_lost_run_is_refused_alone(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    runs = [await store.running(worker, next(ids)) for _ in range(5)]
    lost = RunKey(runs[2].workflow, 7)
    fates = await store.hand_over(worker, *[store.new_write(key, [row("1")]) for key in [*runs, lost]])
    assert [fate.what for fate in fates] == ["done"] * 5 + ["lost"]
    await store.free(worker)
    (again, *_) = await store.claim_all(worker)
    assert again.epoch == 2
    fates = await store.hand_over(worker, *[store.new_write(key, [row("2")]) for key in (runs[0], again.run)])
    assert [fate.what for fate in fates] == ["lost", "done"]


REFUSED = {
    "no JSON": row("2", "{"),
    "not a number": row("2", "NaN"),
    "infinity": row("2", "[-Infinity]"),
    "NUL": row("2", '"\x00"'),
    "lone surrogate": row("2", '"\ud800"'),
    "separator": row("2", '"\x1f"'),
    "NUL in a name": row("2", name="a\x00b"),
    "a number out of range": row("2", attempts=2**40),
    "no JSON in a state": row("2", turn_state="x"),
}


@pytest.mark.parametrize("which", REFUSED)
async def test_what_the_database_does_not_take_is_refused_alone(store: Subject, ids: Ids, which: str) -> None:
    """With all that its run has handed over behind it: history has no holes. What came before it stays."""
    worker = store.worker()
    runs = [await store.running(worker, next(ids)) for _ in range(3)]
    writes = [store.new_write(run, [row("1")]) for run in runs]
    writes += [store.new_write(run, [REFUSED[which] if run == runs[1] else row("2")]) for run in runs]
    writes += [store.new_write(run, [row("3")]) for run in runs]
    fates = [fate.what for fate in await store.hand_over(worker, *writes)]
    assert fates == ["done"] * 3 + ["done", "refused", "done"] * 2
    locations = [[event[0] for event in (await store.picture(run.workflow_id)).events] for run in runs]
    assert locations == [["1", "2", "3"], ["1"], ["1", "2", "3"]]


TAKEN = {
    "a long number": "1" * 5_000,
    "control characters, escaped": '"\\u0000\\u001f\\ud800"',
    "an order of its own": '{"b":1,"a":2,"b":3}',
    "spaces": " [1 , 2.50] ",
    "letters": '"\u00e4\u2028\U0001f600"',
}


@pytest.mark.parametrize("which", TAKEN)
async def test_payloads_come_back_letter_by_letter(store: Subject, ids: Ids, which: str) -> None:
    id, worker, text = next(ids), store.worker(), TAKEN[which]
    run = await store.running(worker, id)
    assert await store.write(worker, run, [row("1", text, input=text, turn_state=text)]) == "done"
    (event,) = (await store.picture(id)).events
    assert (event[9], event[10], event[13]) == (text, text, text)


async def test_state_and_tags(store: Subject, ids: Ids) -> None:
    id, worker = next(ids), store.worker()
    run = await store.running(worker, id, tags='{"a":1}')
    changes = [
        RunChanges(state='{"n":1}'),
        RunChanges(tags='{"a":2}'),
        RunChanges(state='{"n":2}', tags='{"a":3}'),
        RunChanges(),
    ]
    for run_changes in changes:
        assert await store.write(worker, run, [], None, run_changes) == "done"
    found = (await store.picture(id)).workflow
    assert (found["state"], found["tags"], found["tags_given"]) == ('{"n":2}', {"a": 3}, {"a": 1})
    await store.free(worker)
    (claimed,) = await store.claim_all(worker)
    assert (claimed.tags, claimed.tags_now, claimed.state) == ({"a": 1}, {"a": 3}, '{"n":2}')


async def test_of_several_changes_in_a_batch_the_last_stays(store: Subject, ids: Ids) -> None:
    id, worker = next(ids), store.worker()
    run = await store.running(worker, id)
    changes = [RunChanges(state='{"n":1}', tags='{"a":1}'), RunChanges(state='{"n":2}'), RunChanges(tags='{"a":2}')]
    await store.hand_over(worker, *[store.new_write(run, [], None, run_changes) for run_changes in changes])
    found = (await store.picture(id)).workflow
    assert (found["state"], found["tags"], found["tags_given"]) == ('{"n":2}', {"a": 2}, {})
