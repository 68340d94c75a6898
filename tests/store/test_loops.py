"""The forgetting of a loop's turns, with a simulated writer in place of the engine (design, "Forgetting")."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
import pytest_asyncio

from pgflow import faults
from pgflow.errors import LeaseLost, PgflowError
from pgflow.history.location import turn
from pgflow.model.rows import EventRow
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from tests.store.scene import Scene, loop_row, row

TURNS = [0, 1, 2, 19, 20, 21, 99, 100, 101, 120, 121, 1000]
POINTS = [
    "loops.before",
    "loops.after_progress",
    "loops.after_move",
    "loops.after_trim",
    "loops.before_commit",
]


@pytest_asyncio.fixture
async def advancer(scene: Scene, worker: int) -> AsyncIterator[LoopAdvancer]:
    advancer = LoopAdvancer(scene.database, worker)
    advancer.start()
    yield advancer
    await advancer.close()


def turn_rows(index: int, loop: str = "1") -> list[EventRow]:
    """Two steps, a branch with a step, and a nested loop that has two turns, all in one turn."""
    at = turn(loop, index)
    return [
        row(f"{at},1", iteration=index, turn_state=str(index)),
        row(f"{at},2", iteration=index),
        row(f"{at},3", kind="branch", iteration=index),
        row(f"{at},3,1", iteration=index),
        row(f"{at},4", kind="loop", iteration=index, loop_progress=1),
        row(f"{turn(f'{at},4', 0)},1", iteration=0),
        row(f"{turn(f'{at},4', 1)},1", iteration=1),
    ]


def turns_in(locations: list[str], loop: str = "1") -> list[int]:
    """Which turns have rows; each of them must have all of its rows."""
    found: dict[int, int] = {}
    for location in locations:
        if location.startswith(loop + ","):
            number = location[len(loop) + 1 :].split(",")[0]
            index = int(number.lstrip("abcdefgh")) - 1
            found[index] = found.get(index, 0) + 1
    assert set(found.values()) <= {len(turn_rows(0))}, f"turns that were torn apart: {found}"
    return sorted(found)


async def settled(scene: Scene, *what: object) -> None:
    assert set(await scene.fates(*what)) == {"committed"}, [scene.told(each) for each in what]


class Writer:
    """Runs a loop as the engine does: turn by turn, an advancement at each multiple, the break at the end."""

    def __init__(self, scene: Scene, journal: Journal, advancer: LoopAdvancer, workflow: UUID) -> None:
        self.scene, self.journal, self.advancer, self.workflow = scene, journal, advancer, workflow

    async def write(self, rows: list[EventRow]) -> None:
        write = self.scene.write(self.workflow, rows)
        self.journal.write(write)
        await settled(self.scene, write)

    async def turns(self, first: int, last: int) -> None:
        if first < last:
            await self.write([each for i in range(first, last) for each in turn_rows(i)])

    async def forget(self, turns: int, **values: object) -> int:
        advance = self.scene.advance(self.workflow, turns, **values)  # type: ignore[arg-type]
        self.advancer.advance(advance)
        await settled(self.scene, advance)
        return advance.moved


@pytest.fixture
def writer(scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer) -> Writer:
    return Writer(scene, journal, advancer, scene.run(worker))


@pytest.mark.parametrize("interval", [1, 7, 20])
async def test_every_row_is_where_it_belongs(
    scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer, interval: int
) -> None:
    """While the turn after `turns` ended ones runs, and after it broke, for each number of turns and two keeps."""
    cases = [(keep, turns) for keep in (100, 0, 3) for turns in TURNS if keep == 100 or turns < 120]
    async with asyncio.TaskGroup() as group:
        for keep, turns in cases:
            writer = Writer(scene, journal, advancer, scene.run(worker))
            group.create_task(run_and_break(scene, writer, interval, keep, turns))


async def run_and_break(scene: Scene, writer: Writer, interval: int, keep: int, turns: int) -> None:
    await writer.write([loop_row()])
    progress = 0
    while progress + interval <= turns:
        await writer.turns(progress, progress + interval)
        progress += interval
        moved = await writer.forget(progress, keep=keep, state=progress)
        assert moved == interval * len(turn_rows(0))
    await writer.turns(progress, turns + 1)
    active = turns_in(scene.locations(writer.workflow))
    forgotten = turns_in(scene.locations(writer.workflow, "forgotten_events"))
    assert active == list(range(progress, turns + 1))
    assert forgotten == list(range(max(0, progress - keep), progress))
    assert scene.one(
        "SELECT loop_progress, loop_state::text, loop_seq FROM events WHERE workflow_id = %s AND location = '1'",
        writer.workflow,
    ) == (progress, str(progress), 10 * progress or None)

    ended = turns + 1
    await writer.forget(ended, keep=keep, output="over", seq=5, state=turns)
    assert turns_in(scene.locations(writer.workflow)) == []
    forgotten = turns_in(scene.locations(writer.workflow, "forgotten_events"))
    assert forgotten == list(range(max(0, ended - keep), ended))
    assert scene.one(
        "SELECT status, output::text, seq, loop_progress, completed_at IS NOT NULL FROM events "
        "WHERE workflow_id = %s AND location = '1'",
        writer.workflow,
    ) == ("completed", '"over"', 5, ended, True)


async def test_no_turn_at_all_archives_nothing(scene: Scene, writer: Writer) -> None:
    await writer.write([loop_row()])
    await writer.turns(0, 1)
    assert await writer.forget(0) == 0
    assert turns_in(scene.locations(writer.workflow)) == [0]
    assert scene.locations(writer.workflow, "forgotten_events") == []


async def test_rows_around_the_loop_stay(scene: Scene, writer: Writer) -> None:
    """Neighbours whose stored locations sort close by: other loops, longer numbers, inserted steps, other workflows."""
    around = ["0.1", "1.1", "1.1,1", "2", "2,1", "a10", "a11,1"]
    await writer.write([loop_row(), *[row(location) for location in around]])
    await writer.turns(0, 12)
    other = Writer(scene, writer.journal, writer.advancer, scene.run(writer.journal.worker_id))
    await other.write([loop_row()])
    await other.turns(0, 12)
    await writer.forget(10)
    left = scene.locations(writer.workflow)
    assert [location for location in left if not location.startswith("1,")] == sorted(["1", *around])
    assert turns_in(left) == [10, 11]
    assert turns_in(scene.locations(other.workflow)) == list(range(12))


async def test_archive_keeps_every_column(scene: Scene, writer: Writer) -> None:
    await writer.write([loop_row()])
    await writer.turns(0, 3)
    columns = scene.all(
        "SELECT column_name::text FROM information_schema.columns WHERE table_schema = current_schema() "
        "AND table_name = 'events'"
    )
    query = (
        f"SELECT {', '.join(f'{name}::text' for name in columns)} FROM %s WHERE workflow_id = %%s AND location "
        "LIKE '1,%%%%' ORDER BY location"
    )
    before = scene.all(query % "events", writer.workflow)
    await writer.forget(3)
    assert scene.all(query % "forgotten_events", writer.workflow) == before


async def test_smaller_keep_sweeps_what_an_older_deployment_kept(scene: Scene, worker: int, writer: Writer) -> None:
    await writer.write([loop_row()])
    await writer.turns(0, 60)
    await writer.forget(20, keep=1000)
    await writer.forget(40, keep=1000)
    await writer.forget(60, keep=5)
    assert turns_in(scene.locations(writer.workflow, "forgotten_events")) == list(range(55, 60))


async def test_many_loops_advance_in_few_transactions(
    scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer
) -> None:
    writers = [Writer(scene, journal, advancer, scene.run(worker)) for _ in range(50)]
    for writer in writers:
        await writer.write([loop_row()])
        await writer.turns(0, 3)
    advances = [scene.advance(writer.workflow, 2) for writer in writers]
    before = scene.one("SELECT count(DISTINCT xmin::text)::int FROM forgotten_events")
    for advance in advances:
        advancer.advance(advance)
    await settled(scene, *advances)
    transactions = scene.one("SELECT count(DISTINCT xmin::text)::int FROM forgotten_events") - before
    assert transactions == 3
    for writer in writers:
        assert turns_in(scene.locations(writer.workflow)) == [2]
        assert turns_in(scene.locations(writer.workflow, "forgotten_events")) == [0, 1]


async def test_one_lost_lease_keeps_no_other_loop_from_advancing(
    scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer
) -> None:
    writers = [Writer(scene, journal, advancer, scene.run(worker)) for _ in range(8)]
    for writer in writers:
        await writer.write([loop_row()])
        await writer.turns(0, 2)
    lost = writers[3].workflow
    scene.do("UPDATE runs SET epoch = 2 WHERE workflow_id = %s", lost)
    advances = [scene.advance(writer.workflow, 1) for writer in writers]
    for advance in advances:
        advancer.advance(advance)
    fates = await scene.fates(*advances)
    assert fates == ["refused" if writer.workflow == lost else "committed" for writer in writers]
    assert isinstance(scene.told(advances[3]), LeaseLost)
    assert turns_in(scene.locations(lost)) == [0, 1]


async def test_state_that_cannot_be_stored_is_refused_alone(
    scene: Scene, worker: int, journal: Journal, advancer: LoopAdvancer
) -> None:
    writers = [Writer(scene, journal, advancer, scene.run(worker)) for _ in range(3)]
    for writer in writers:
        await writer.write([loop_row()])
        await writer.turns(0, 1)
    advances = [scene.advance(writer.workflow, 1) for writer in writers]
    advances[0].state = "not JSON"
    advances[1].state = '"\x00"'
    for advance in advances:
        advancer.advance(advance)
    assert await scene.fates(*advances) == ["refused", "refused", "committed"]
    assert turns_in(scene.locations(writers[0].workflow)) == [0]


async def test_missing_loop_row_is_named(scene: Scene, writer: Writer) -> None:
    advance = scene.advance(writer.workflow, 1)
    writer.advancer.advance(advance)
    assert await scene.fates(advance) == ["refused"]
    assert isinstance(scene.told(advance), PgflowError)
    assert "{1}" in str(scene.told(advance))


@pytest.mark.parametrize("point", POINTS)
async def test_next_turn_writes_while_the_advancement_is_held_open(scene: Scene, writer: Writer, point: str) -> None:
    await writer.write([loop_row()])
    await writer.turns(0, 20)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    advance = scene.advance(writer.workflow, 20, keep=5, state=20)
    with faults.install({point: hold}):
        writer.advancer.advance(advance)
        await asyncio.wait_for(reached.wait(), 10)
        if point == "loops.before_commit":
            late = [scene.write(writer.workflow, turn_rows(i)) for i in (20, 21)]
            for write in late:  # the fence has locked the run's row: these wait for the commit
                writer.journal.write(write)
        else:
            await writer.turns(20, 22)
            late = []
        go_on.set()
        await settled(scene, advance, *late)
    assert turns_in(scene.locations(writer.workflow)) == [20, 21]
    assert turns_in(scene.locations(writer.workflow, "forgotten_events")) == list(range(15, 20))
    assert advance.moved == 20 * len(turn_rows(0))


@pytest.mark.parametrize("point", POINTS[:-1])
async def test_stale_worker_is_refused_wherever_it_was_held_up(scene: Scene, writer: Writer, point: str) -> None:
    """Its lease goes to another worker while it advances; that one advances first, or later, or both at once."""
    await writer.write([loop_row()])
    await writer.turns(0, 40)
    successor = scene.worker()
    journal, advancer = Journal(scene.database, successor), LoopAdvancer(scene.database, successor)
    journal.start()
    advancer.start()
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        if not reached.is_set():
            reached.set()
            await go_on.wait()

    stale = scene.advance(writer.workflow, 20, keep=5, state="stale")
    with faults.install({point: hold}):
        writer.advancer.advance(stale)
        await asyncio.wait_for(reached.wait(), 10)
        scene.do(
            "UPDATE runs SET worker_id = %s, epoch = 2 WHERE workflow_id = %s",
            successor,
            writer.workflow,
        )
        valid = scene.advance(writer.workflow, 40, keep=5, state="valid", epoch=2)
        advancer.advance(valid)
        if point == "loops.before":
            await scene.fates(valid)
        go_on.set()
        assert await scene.fates(stale, valid) == ["refused", "committed"]
    assert isinstance(scene.told(stale), LeaseLost)
    assert turns_in(scene.locations(writer.workflow)) == []
    assert turns_in(scene.locations(writer.workflow, "forgotten_events")) == list(range(35, 40))
    assert scene.one(
        "SELECT loop_progress, loop_state::text FROM events WHERE workflow_id = %s AND location = '1'",
        writer.workflow,
    ) == (40, '"valid"')
    await advancer.close()
    await journal.close()


async def test_serialization_failures_are_repeated_and_counted(scene: Scene, writer: Writer) -> None:
    """Somebody changes the run's row after the transaction's snapshot: the fence cannot lock what it has seen."""
    await writer.write([loop_row()])
    await writer.turns(0, 20)
    touched = 0

    def touch() -> None:
        nonlocal touched
        touched += 1
        if touched <= 3:
            scene.do("UPDATE runs SET mailbox = mailbox + 1 WHERE workflow_id = %s", writer.workflow)

    with faults.install({"loops.after_trim": touch}):
        assert await writer.forget(20, keep=5) == 20 * len(turn_rows(0))
    assert writer.advancer.retries == 3
    assert turns_in(scene.locations(writer.workflow, "forgotten_events")) == list(range(15, 20))


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("committed", [False, True])
async def test_lost_connection_is_no_second_advancement(
    scene: Scene, writer: Writer, committed: bool, breaks: bool
) -> None:
    await writer.write([loop_row()])
    await writer.turns(0, 10)
    advance = scene.advance(writer.workflow, 10, keep=3, seq=7 if breaks else None, output=1)
    cut = 0
    line = writer.advancer._line
    transact = writer.advancer._transact

    async def broken(group):  # type: ignore[no-untyped-def]
        nonlocal cut
        cut += 1
        if cut > 1:
            return await transact(group)
        if committed:
            await transact(group)
        connection = await line.get()
        scene.do("SELECT pg_terminate_backend(%s)", connection.info.backend_pid)
        await connection.execute("SELECT 1")

    writer.advancer._transact = broken  # type: ignore[method-assign]
    writer.advancer.advance(advance)
    await settled(scene, advance)
    assert cut == 2
    assert turns_in(scene.locations(writer.workflow)) == []
    assert turns_in(scene.locations(writer.workflow, "forgotten_events")) == [7, 8, 9]
    if breaks:
        at = scene.one("SELECT completed_at FROM events WHERE workflow_id = %s", writer.workflow)
        assert scene.told(advance) == at


async def test_advancement_reads_only_what_it_forgets(scene: Scene, writer: Writer) -> None:
    """Bounded scans: neither turns that were forgotten long ago nor the following turns are looked at."""
    await writer.write([loop_row()])
    await writer.turns(0, 60)
    for turns in (20, 40):
        await writer.forget(turns, keep=1000)
    # A row where the progress says that there can be none: a scan of the whole prefix would take it along.
    scene.do(
        "INSERT INTO events (workflow_id, location, kind, name, status) VALUES (%s, '1,3,9', 'activity', 'x', "
        "'completed')",
        writer.workflow,
    )
    await writer.forget(60, keep=1000)
    assert "1,3,9" in scene.locations(writer.workflow)
