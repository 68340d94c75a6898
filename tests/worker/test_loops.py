"""Loops as a worker runs them: which rows are active and which forgotten, in the middle of a turn and after the break.

`tests/store/test_loops.py` asks the same of the store with a simulated writer, and for all numbers. About 10 seconds.
"""

from __future__ import annotations

from functools import partial

import pytest

import pgflow
from pgflow.history.location import turn
from tests.store.scene import Scene
from tests.waiting import until
from tests.worker import flows
from tests.worker.processes import let_go_on

TURNS = [0, 1, 2, 19, 20, 21, 99, 100, 101, 120, 121]
KEEP = 100


def rows_of(index: int, held: bool = False) -> list[str]:
    """The locations of one turn, those of its branch and of its own loop included."""
    at = turn("1", index)
    rows = [f"{at},1", f"{at},2", f"{at},2,1"]
    if index % 10 == 0:
        rows += [f"{at},3", f"{at},3,1,1", f"{at},3,2,1"]
    if held:
        rows.append(f"{at},{4 if index % 10 == 0 else 3}")
    return rows


def rows_between(first: int, last: int, held_at: int) -> list[str]:
    """The locations of the turns from `first` up to, not including, `last`."""
    return sorted(row for index in range(first, last) for row in rows_of(index, index == held_at))


@pytest.mark.parametrize("interval", [1, 7, 20])
async def test_every_row_is_where_it_belongs(scene: Scene, client: pgflow.Client, interval: int) -> None:
    """For each number of turns: while the turn after them runs, and after that one broke the loop."""
    numbers = [*TURNS, 1000] if interval == 20 else TURNS
    handles = {turns: await client.dispatch(flows.turning, turns, interval, KEEP, held_at=turns) for turns in numbers}

    def rows(turns: int) -> tuple[list[str], list[str]]:
        id = handles[turns].id
        active = scene.locations(id)
        # Nested loops have ended: what they hold is forgotten before the turn around them is.
        return [row for row in active if row != "1"], scene.locations(id, "forgotten_events")

    def nested(first: int, last: int) -> list[str]:
        return [row for index in range(first, last) if index % 10 == 0 for row in rows_of(index)[4:]]

    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, lease=60):
        for turns in numbers:
            progress = turns // interval * interval
            await until(
                partial(scene.one, "SELECT count(*) FROM public.marks WHERE what = %s", f"turn {turns} begins"),
                f"turn {turns}",
                patience=150,
            )
            await until(
                partial(
                    scene.one,
                    "SELECT loop_progress = %s FROM events WHERE workflow_id = %s AND location = '1'",
                    progress,
                    handles[turns].id,
                ),
                f"progress {progress} of {turns} turns",
            )
            active, forgotten = rows(turns)
            loops = nested(progress, turns + 1)
            # The activity that waits has no row: its first attempt is under way.
            assert active == sorted(set(rows_between(progress, turns + 1, -1)) - set(loops))
            assert forgotten == sorted([*rows_between(max(0, progress - KEEP), progress, -1), *loops])
        for turns in numbers:
            let_go_on(scene, f"turn {turns}")
        for turns, handle in handles.items():
            assert await handle.output(60) == turns
            active, forgotten = rows(turns)
            assert active == []
            assert forgotten == rows_between(max(0, turns + 1 - KEEP), turns + 1, turns)
            assert scene.all(
                "SELECT status, loop_progress FROM events WHERE workflow_id = %s AND location = '1'", handle.id
            ) == [("completed", turns + 1)]
    for turns in numbers:
        # Each row says which turn of its own loop it belongs to.
        assert (
            scene.all(
                "SELECT location FROM history WHERE workflow_id = %s AND location ~ '^1,[^,]+,[^,]+$' "
                "AND iteration <> regexp_replace(split_part(location, ',', 2), '^[a-z]', '')::int - 1",
                handles[turns].id,
            )
            == []
        )


async def test_a_killed_loop_goes_on_with_the_turn_that_it_was_in(scene: Scene, client: pgflow.Client) -> None:
    """Not with an earlier one: turns that have ended never run again, though their rows are still active."""
    handle = await client.dispatch(flows.turning, 30, 20, held_at=17)
    for life in range(3):
        flows.entered.clear()
        async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL, grace=0, lease=60):
            times = scene.one("SELECT count(*) FROM public.marks WHERE what = 'turn 17 begins'")
            await until(
                partial(scene.one, "SELECT count(*) > %s FROM public.marks WHERE what = 'turn 17 begins'", times),
                "turn 17",
            )
        assert flows.entered == ([17] if life else list(range(18)))
    let_go_on(scene, "turn 17")
    async with pgflow.Worker(scene.database.dsn, workflows=flows.ALL):
        assert await handle.output(30) == 30
    assert scene.all("SELECT DISTINCT attempts FROM history WHERE kind = 'activity'") == [1]
