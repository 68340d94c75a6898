"""Advancements of loops: which rows leave active history, which are kept, and who may do it."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from pgflow.history.location import turn
from pgflow.model.outcomes import Released
from pgflow.model.rows import RunKey
from tests.conformance.subject import Picture, Subject
from tests.store.scene import loop_row, row

Ids = Iterator[UUID]


async def looping(store: Subject, ids: Ids, turns: int, location: str = "1") -> tuple[int, RunKey]:
    """A worker and its run, with a loop of so many turns of one row each, and rows around it."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    around = [] if location == "1" else [row("1")]
    rows = [row(f"{turn(location, number)},1", str(number), iteration=number) for number in range(turns)]
    assert await store.write(worker, run, [*around, loop_row(location), *rows, row("3")]) == "done"
    return worker, run


def locations(events: list[tuple[object, ...]]) -> list[object]:
    return [event[0] for event in events]


def turns_of(picture: Picture, location: str = "1") -> tuple[list[int], list[int]]:
    """The turns that are active, and those that are forgotten and kept."""
    active = [event[1] for event in picture.events if str(event[0]).startswith(location + ",")]
    return active, [event[1] for event in picture.forgotten]


@pytest.mark.parametrize(
    ("turns", "keep", "left", "kept"),
    [
        (0, 100, range(12), range(0)),
        (1, 100, range(1, 12), range(1)),
        (5, 100, range(5, 12), range(5)),
        (10, 3, range(10, 12), range(7, 10)),
        (12, 0, range(0), range(0)),
        (11, 1, range(11, 12), range(10, 11)),
    ],
)
async def test_what_leaves(store: Subject, ids: Ids, turns: int, keep: int, left: range, kept: range) -> None:
    worker, run = await looping(store, ids, 12)
    advance = store.new_advance(run, "1", turns, keep=keep)
    assert await store.advance(worker, advance) == "done"
    found = await store.picture(run.workflow_id)
    assert turns_of(found) == (list(left), list(kept))
    assert advance.moved == turns
    loop = found.events[0]
    assert (loop[0], loop[6], loop[15], loop[16], loop[18]) == (
        ("1", "pending", turns, f'"after {turns}"', 10 * turns) if turns else ("1", "pending", 0, "0", None)
    )
    assert locations(found.events)[-1] == "3"


async def test_one_advancement_after_the_other(store: Subject, ids: Ids) -> None:
    worker, run = await looping(store, ids, 200, location="2")
    moved = []
    for turns in (20, 40, 60, 150, 199):
        advance = store.new_advance(run, "2", turns, keep=30)
        assert await store.advance(worker, advance) == "done"
        moved.append(advance.moved)
        found = await store.picture(run.workflow_id)
        assert turns_of(found, "2") == (list(range(turns, 200)), list(range(max(turns - 30, 0), turns)))
    assert moved == [20, 20, 20, 90, 49]
    found = await store.picture(run.workflow_id)
    assert locations(found.events) == ["1", "2", "2,b200,1", "3"]


async def test_one_that_is_behind_changes_nothing(store: Subject, ids: Ids) -> None:
    worker, run = await looping(store, ids, 12)
    assert await store.advance(worker, store.new_advance(run, "1", 6)) == "done"
    before = await store.picture(run.workflow_id)
    for turns in (6, 3, 0):
        advance = store.new_advance(run, "1", turns, keep=0)
        assert await store.advance(worker, advance) == "done"
        assert advance.moved == 0
        assert await store.picture(run.workflow_id) == before


async def test_the_break_ends_the_loop(store: Subject, ids: Ids) -> None:
    worker, run = await looping(store, ids, 12)
    fate = (await store.hand_over(worker, store.new_advance(run, "1", 12, keep=2, seq=44)))[0]
    found = await store.picture(run.workflow_id)
    loop = found.events[0]
    assert (loop[2], loop[6], loop[8], loop[10], loop[15]) == (44, "completed", "#1", '"broke at 12"', 12)
    assert turns_of(found) == ([], [10, 11])
    again = (await store.hand_over(worker, store.new_advance(run, "1", 13, keep=0, seq=45)))[0]
    assert again.answer == fate.answer, "it tells when it ended"
    assert await store.picture(run.workflow_id) == found


async def test_everything_under_a_turn_goes_with_it(store: Subject, ids: Ids) -> None:
    """Branches, nested loops and their rows, inserted steps; what an inner loop keeps is its own affair."""
    worker = store.worker()
    run = await store.running(worker, next(ids))
    inner = [row(f"1,2,1,{number},1", iteration=number - 1) for number in (1, 2, 3)]
    rows = [
        loop_row("1"),
        row("1,1,0.1"),
        loop_row("1,2,1"),
        *inner,
        row("1,2,1.1"),
        row("1,2,2,4"),
        row("1,3,1"),
        row("1.1"),
        row("1.1,1"),
        row("a10,1"),
    ]
    await store.write(worker, run, rows)
    assert await store.advance(worker, store.new_advance(run, "1,2,1", 2, keep=1)) == "done"
    found = await store.picture(run.workflow_id)
    assert locations(found.forgotten) == ["1,2,1,2,1"]
    assert await store.advance(worker, store.new_advance(run, "1", 2, keep=1)) == "done"
    found = await store.picture(run.workflow_id)
    assert locations(found.events) == ["1", "1,3,1", "1.1", "1.1,1", "a10,1"]
    assert locations(found.forgotten) == ["1,2,1", "1,2,1,2,1", "1,2,1,3,1", "1,2,1.1", "1,2,2,4"]


async def test_forgotten_rows_are_as_they_were(store: Subject, ids: Ids) -> None:
    worker, run = await looping(store, ids, 4)
    before = (await store.picture(run.workflow_id)).events
    await store.advance(worker, store.new_advance(run, "1", 3))
    found = await store.picture(run.workflow_id)
    assert found.forgotten == before[1:4]


async def test_a_late_row_of_the_loop_takes_nothing_back(store: Subject, ids: Ids) -> None:
    worker, run = await looping(store, ids, 4)
    await store.advance(worker, store.new_advance(run, "1", 3))
    await store.write(worker, run, [loop_row(attempts=1, loop_progress=0, loop_state="0")])
    loop = (await store.picture(run.workflow_id)).events[0]
    assert (loop[7], loop[15], loop[16], loop[18]) == (1, 3, '"after 3"', 30)
    await store.write(worker, run, [loop_row(status="cancelled", seq=9, loop_progress=None, loop_state=None)])
    loop = (await store.picture(run.workflow_id)).events[0]
    assert (loop[6], loop[15], loop[16], loop[18]) == ("cancelled", 3, '"after 3"', 30)


async def test_who_has_no_lease_forgets_nothing(store: Subject, ids: Ids) -> None:
    worker, run = await looping(store, ids, 4)
    other = store.worker()
    before = await store.picture(run.workflow_id)
    for who, key in ((other, run), (worker, run._replace(epoch=2)), (worker, RunKey(str(next(ids)), 1))):
        assert await store.advance(who, store.new_advance(key, "1", 3)) == "lost"
    assert await store.picture(run.workflow_id) == before
    await store.write(worker, run, [], Released())
    assert await store.advance(worker, store.new_advance(run, "1", 3)) == "lost"


async def test_a_lost_one_is_refused_alone(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    runs = [await store.running(worker, next(ids)) for _ in range(4)]
    for run in runs:
        await store.write(worker, run, [loop_row(), row("1,1,1")])
    advances = [store.new_advance(run._replace(epoch=1 + (run == runs[1])), "1", 1) for run in runs]
    assert [fate.what for fate in await store.hand_over(worker, *advances)] == ["done", "lost", "done", "done"]
    assert [len((await store.picture(run.workflow_id)).forgotten) for run in runs] == [1, 0, 1, 1]


async def test_what_cannot_be_advanced_is_refused(store: Subject, ids: Ids) -> None:
    """A loop that has no row, a row that is no loop's, a state that is no JSON: alone, and nothing has changed."""
    worker, run = await looping(store, ids, 4)
    before = await store.picture(run.workflow_id)
    advances = [
        store.new_advance(run, "2", 1),
        store.new_advance(run, "3", 1),
        store.new_advance(run, "1", 1, state="{"),
    ]
    assert [fate.what for fate in await store.hand_over(worker, *advances)] == ["refused"] * 3
    assert await store.picture(run.workflow_id) == before


async def test_loops_of_one_workflow_advance_together(store: Subject, ids: Ids) -> None:
    worker = store.worker()
    run = await store.running(worker, next(ids))
    loops = [str(number) for number in range(1, 6)]
    rows = [row(f"{loop},{number},1") for loop in loops for number in (1, 2)]
    await store.write(worker, run, [*map(loop_row, loops), *rows])
    fates = await store.hand_over(worker, *[store.new_advance(run, loop, 1) for loop in loops])
    assert {fate.what for fate in fates} == {"done"}
    found = await store.picture(run.workflow_id)
    assert locations(found.forgotten) == [f"{loop},1,1" for loop in loops]
