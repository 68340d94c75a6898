"""The journal: what it writes, in which order, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta

import pytest

from pgflow import faults
from pgflow.errors import LeaseLost
from pgflow.model.outcomes import Completed, Failed, Outcome, Released, Suspended
from pgflow.store.journal.journal import Journal
from tests.store.scene import Scene, loop_row, row
from tests.waiting import until

WHEN = datetime(2031, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)


async def settled(scene: Scene, *what: object) -> None:
    assert set(await scene.fates(*what)) == {"committed"}, [scene.told(each) for each in what]


async def test_every_column_arrives(scene: Scene, worker: int, journal: Journal) -> None:
    workflow = scene.run(worker)
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
        wake_at=WHEN,
        turn_state='"s"',
        turn_now=WHEN,
        loop_progress=9,
        loop_state="[]",
    )
    bare = row("2", None, name="", status="pending")
    first, second = scene.write(workflow, [full]), scene.write(workflow, [bare])
    journal.write(first)
    journal.write(second)
    await settled(scene, first, second)
    columns = ", ".join(
        f"{name}::text" if name in ("input", "output", "error", "turn_state", "loop_state") else name
        for name in full._fields
    )
    found = scene.all(f"SELECT {columns} FROM events ORDER BY location")
    assert found == [tuple(full), tuple(bare)]
    at, completed = scene.one("SELECT created_at, completed_at FROM history WHERE location <> '2'")
    assert at == completed == scene.told(first)
    assert scene.one("SELECT completed_at FROM history WHERE location = '2'") is None


async def test_outcomes(scene: Scene, worker: int, journal: Journal) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    outcomes: dict[str, Outcome] = {
        "completed": Completed('{"x": 1}'),
        "failed": Failed('{"type": "E"}'),
        "sleeping": Suspended(later, ("a", "b")),
        "waiting": Suspended(None),
        "overdue": Suspended(WHEN.replace(year=2001)),
        "released": Released(),
    }
    runs = {name: scene.run(worker, unique_key=name.encode()) for name in outcomes}
    writes = [scene.write(runs[name], [row("1")], outcome) for name, outcome in outcomes.items()]
    for write in writes:
        journal.write(write)
    await settled(scene, *writes)
    found = {
        workflow: rest
        for workflow, *rest in scene.all(
            "SELECT w.id, w.status, w.output::text, w.error::text, w.completed_at IS NOT NULL, r.status, r.worker_id, "
            "r.claim, r.waiting_for, r.wake_at, r.unique_key FROM workflows w LEFT JOIN runs r ON r.workflow_id = w.id"
        )
    }
    at = scene.told(writes[0])
    assert found[runs["completed"]] == ["completed", '{"x": 1}', None, True, *[None] * 6]
    assert found[runs["failed"]] == [
        *("failed", None, '{"type": "E"}', True, "failed"),
        *[None] * 5,
    ]
    live = [None, None, None, False]
    assert found[runs["sleeping"]] == [
        *live,
        "sleeping",
        None,
        None,
        ["a", "b"],
        later,
        b"sleeping",
    ]
    assert found[runs["waiting"]] == [*live, "sleeping", None, None, None, None, b"waiting"]
    assert found[runs["overdue"]] == [*live, "sleeping", None, None, None, at, b"overdue"]
    assert found[runs["released"]] == [*live, "pending", None, None, None, at, b"released"]
    assert scene.one("SELECT count(*) FROM events") == len(outcomes)


async def test_ended_rows_are_never_overwritten(scene: Scene, worker: int, journal: Journal) -> None:
    workflow = scene.run(worker)
    steps = [
        row("1", None, status="pending", attempts=2, turn_state="1", turn_now=WHEN, input="[1]"),
        row("1", None, status="pending", attempts=1),  # older, though it arrives later
        row("1", '"first"', attempts=3),
        row("1", '"second"', attempts=4),
        row("1", None, status="pending", attempts=5),
    ]
    for step in steps:
        write = scene.write(workflow, [step])
        journal.write(write)
        await settled(scene, write)
        assert scene.one("SELECT attempts FROM events") == min(3, max(2, step.attempts))
    assert scene.one("SELECT status, output::text, turn_state::text, turn_now, input::text FROM events") == (
        "completed",
        '"first"',
        "1",
        WHEN,
        "[1]",
    )


async def test_progress_never_goes_back(scene: Scene, worker: int, journal: Journal) -> None:
    workflow = scene.run(worker)
    for step in (loop_row(loop_progress=20, loop_state="20"), loop_row()):
        write = scene.write(workflow, [step])
        journal.write(write)
        await settled(scene, write)
    assert scene.one("SELECT loop_progress, loop_state::text FROM events") == (20, "20")


async def test_rows_of_one_location_are_folded_within_a_batch(scene: Scene, worker: int, journal: Journal) -> None:
    workflow = scene.run(worker)
    writes = [
        scene.write(workflow, [row("1", None, status="pending", attempts=0, turn_state="5")]),
        scene.write(workflow, [row("1", '"done"'), row("2")]),
        scene.write(workflow, [row("1", None, status="pending")], Suspended(None)),
    ]
    for write in writes:
        journal.write(write)
    await settled(scene, *writes)
    assert journal.batches == 1
    assert scene.one("SELECT status, output::text, turn_state::text FROM events WHERE location = '1'") == (
        "completed",
        '"done"',
        "5",
    )


async def test_writes_are_gathered_while_a_batch_is_away(scene: Scene, worker: int, journal: Journal) -> None:
    runs = [scene.run(worker) for _ in range(50)]
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go_on.wait()

    with faults.install({"journal.before": hold}):
        writes = [scene.write(run, [row("1")]) for run in runs]
        journal.write(writes[0])
        await reached.wait()
        for write in writes[1:]:
            journal.write(write)
        assert journal.backlog == 100
        go_on.set()
        await settled(scene, *writes)
    assert journal.batches == 2
    assert journal.backlog == 0
    assert scene.all("SELECT count(DISTINCT xmin::text)::int FROM events") == [2]


async def test_batches_are_bounded_in_rows_and_bytes(scene: Scene, worker: int) -> None:
    workflow = scene.run(worker)
    sizes: list[int] = []
    journal = Journal(
        scene.database,
        worker,
        max_rows=10,
        max_bytes=10_000,
        on_batch=lambda runs, rows: sizes.append(rows),
    )
    small = [scene.write(workflow, [row(f"1,{i}")]) for i in range(1, 10)]
    large = [scene.write(workflow, [row(f"2,{i}", json.dumps("x" * 6_000))]) for i in (1, 2, 3)]
    huge = scene.write(workflow, [row("3", json.dumps("x" * 60_000))])
    for write in (*small, *large, huge):
        journal.write(write)
    journal.start()
    await journal.drain()
    await settled(scene, *small, *large, huge)
    assert sizes == [5, 4 + 1, 1, 1, 1]
    await journal.close()


async def test_what_a_callback_of_a_refused_batch_writes_is_waited_for(
    scene: Scene, worker: int, journal: Journal
) -> None:
    again = scene.write(scene.run(worker), [row("1")])
    bad = scene.write(scene.run(worker), [row("1", "this is no JSON")])
    bad.on_refused = lambda write, error: journal.write(again)
    journal.write(bad)
    await journal.drain()
    assert scene.fate(again) == "committed"


async def test_callers_can_wait_for_room(scene: Scene, worker: int) -> None:
    workflow = scene.run(worker)
    journal = Journal(scene.database, worker, bound=4)
    for i in range(1, 5):
        journal.write(scene.write(workflow, [row(f"{i}")]))
    waiting = asyncio.ensure_future(journal.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    journal.start()
    await asyncio.wait_for(waiting, 10)
    await journal.drain()
    await journal.close()


async def test_writes_of_one_run_stay_in_order_past_a_busy_row(scene: Scene, worker: int, journal: Journal) -> None:
    busy, free = scene.run(worker), scene.run(worker)
    stranger = scene.other()
    stranger.execute("SELECT FROM runs WHERE workflow_id = %s FOR UPDATE", [busy])
    held = [scene.write(busy, [row("1", None, status="pending", attempts=i)]) for i in (1, 2)]
    for write in held:
        journal.write(write)
    for i in range(1, 20):
        write = scene.write(free, [row(f"{i}")])
        journal.write(write)
        await settled(scene, write)
        held.append(scene.write(busy, [row(f"{i + 1}")]))
        journal.write(held[-1])
    assert [scene.fate(write) for write in held] == [None] * len(held)
    held.append(scene.write(busy, [row("1", '"end"')], Suspended(None)))
    journal.write(held[-1])
    stranger.rollback()
    stranger.close()
    await settled(scene, *held)
    assert scene.one("SELECT output::text FROM events WHERE workflow_id = %s AND location = '1'", busy) == '"end"'
    order = [id(write) for write in held]
    assert [each for each in scene.log if each in set(order)] == order


async def test_many_busy_runs_leave_room_for_others(scene: Scene, worker: int) -> None:
    journal = Journal(scene.database, worker, max_rows=8)
    journal.start()
    busy = [scene.run(worker) for _ in range(40)]
    stranger = scene.other()
    stranger.execute("SELECT FROM runs FOR UPDATE")
    held = [scene.write(workflow, [row("1")]) for workflow in busy]
    for write in held:
        journal.write(write)
    free = scene.run(worker)
    for i in range(1, 6):
        write = scene.write(free, [row(f"{i}")])
        journal.write(write)
        await settled(scene, write)
    stranger.rollback()
    stranger.close()
    await settled(scene, *held)
    await journal.close()


POISON = {
    "not JSON": row("2", "{"),
    "NUL": row("2", '"\x00"'),
    "lone surrogate": row("2", '"\ud800"'),
    "separator": row("2", '"\x1f"'),
    "a location too long for its index": row(random.Random(1).randbytes(4_000).hex()),
    "a number out of range": row("2", attempts=2**40),
    "a value of another type": row("2", attempts="many"),
}


@pytest.mark.parametrize("what", POISON)
async def test_poisoned_row_is_refused_alone(scene: Scene, worker: int, journal: Journal, what: str) -> None:
    """With all that its run wrote after it, even what is written before the refusal is told; not what
    came before it.
    """
    runs = [scene.run(worker) for _ in range(9)]
    before = [scene.write(workflow, [row("1")]) for workflow in runs]
    same = [scene.write(workflow, [POISON[what] if workflow is runs[4] else row("2")]) for workflow in runs]
    after = scene.write(runs[4], [row("3")])
    for write in (*before, *same, after):
        journal.write(write)
    late: list[object] = []

    def refuse(write: object, error: BaseException) -> None:
        # As a run does: what it gathers until it hears of the refusal is refused too, its failure is written.
        scene._refused(write, error)
        if write is same[4]:
            late.append(scene.write(runs[4], [], Failed('"poisoned"')))
            journal.write(late[0])  # type: ignore[arg-type]

    same[4].on_refused = refuse
    fates = await scene.fates(*before, *same, after)
    assert fates == ["committed"] * 9 + ["committed"] * 4 + ["refused"] + ["committed"] * 4 + ["refused"]
    await settled(scene, *late)
    assert scene.locations(runs[4]) == ["1"]
    assert scene.one("SELECT status FROM runs WHERE workflow_id = %s", runs[4]) == "failed"
    assert not isinstance(scene.told(same[4]), LeaseLost)


async def test_poison_refuses_what_its_run_wrote_while_the_batch_was_away(
    scene: Scene, worker: int, journal: Journal
) -> None:
    workflow, other = scene.run(worker), scene.run(worker)
    poisoned, later = scene.write(workflow, [row("1", "{")]), scene.write(workflow, [row("2")])
    stranger = scene.write(other, [row("1")])
    with faults.install({"journal.before": lambda: None if later_sent else send()}):
        later_sent: list[bool] = []

        def send() -> None:
            later_sent.append(True)
            journal.write(later)
            journal.write(stranger)

        journal.write(poisoned)
        assert await scene.fates(poisoned, later, stranger) == ["refused", "refused", "committed"]
    assert scene.locations(workflow) == []


async def test_callback_that_raises_harms_nobody(
    scene: Scene, worker: int, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(write: object, at: object) -> None:
        raise RuntimeError("a bug")

    first, second = (scene.write(scene.run(worker), [row("1")]) for _ in range(2))
    first.on_commit = broken
    journal.write(first)
    journal.write(second)
    await settled(scene, second)
    assert "a bug" in caplog.text


async def test_close_refuses_what_waits(scene: Scene, worker: int) -> None:
    journal = Journal(scene.database, worker)
    write = scene.write(scene.run(worker), [row("1")])
    journal.write(write)
    await journal.close()
    assert scene.fate(write) == "refused"
    assert isinstance(scene.told(write), LeaseLost)


async def test_database_that_comes_back(scene: Scene, worker: int, journal: Journal) -> None:
    """Not one write is refused because its connection was cut again and again."""
    workflow = scene.run(worker)
    cut = 0

    def cutting() -> None:
        nonlocal cut
        if cut < 5:
            cut += 1
            scene.do("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%%journal'")

    with faults.install({"journal.before": cutting}):
        writes = [scene.write(workflow, [row(f"{i}")]) for i in range(1, 10)]
        for write in writes:
            journal.write(write)
        await settled(scene, *writes)
    assert cut == 5
    assert len(scene.locations(workflow)) == 9


async def test_statement_is_prepared_and_reaches_rows_by_index(scene: Scene, worker: int, journal: Journal) -> None:
    """The plan that is made while the tables are empty is still good when they are not."""
    write = scene.write(scene.run(worker), [row("1")])
    journal.write(write)
    await settled(scene, write)
    connection = await scene.database.connect("plan")
    async with connection:
        shown = await connection.execute("SHOW enable_seqscan")
        assert await shown.fetchone() == ("off",)
        shown = await connection.execute("SHOW plan_cache_mode")
        assert await shown.fetchone() == ("force_generic_plan",)


async def test_server_error_is_no_refusal(scene: Scene, worker: int, journal: Journal) -> None:
    """A statement that was cancelled says nothing about its rows: it is sent again."""
    workflow = scene.run(worker)
    blocker = scene.other()
    blocker.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
    write = scene.write(workflow, [row("1")])
    journal.write(write)
    waiting = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%%journal' AND wait_event_type = 'Lock'"
    (pid,) = await until(lambda: scene.all(waiting), "the journal to wait")
    scene.do("SELECT pg_cancel_backend(%s)", pid)
    blocker.rollback()
    blocker.close()
    await settled(scene, write)
    assert isinstance(scene.told(write), datetime)


async def test_a_row_that_could_not_be_seen(scene: Scene, worker: int, journal: Journal) -> None:
    """Rows are inserted as new ones where none is seen. One that turns out to be there is kept, and no run suffers by
    it.
    """
    workflow, neighbour = scene.run(worker), scene.run(worker)
    writes = [
        scene.write(workflow, [row("1", '"later"'), row("2")]),
        scene.write(neighbour, [row("1")], Completed("1")),
    ]
    with scene.other() as other:
        other.execute(
            "INSERT INTO events (workflow_id, location, kind, status, output, completed_at) "
            "VALUES (%s, '1', 'activity', 'completed', '\"sooner\"', now())",
            [workflow],
        )
        for write in writes:
            journal.write(write)
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND application_name = 'pgflow journal' AND datname = current_database()"
        )
        await until(lambda: scene.one(waits), "the journal finds the row that it could not see")
        other.commit()
    await settled(scene, *writes)
    assert scene.all(
        "SELECT location, output::text FROM events WHERE workflow_id = %s ORDER BY location", workflow
    ) == [("1", '"sooner"'), ("2", "null")]
    assert scene.locations(neighbour) == ["1"]
    assert scene.one("SELECT status FROM workflows WHERE id = %s", neighbour) == "completed"
