"""Rewinds beside others: whoever operates the workflow at the same moment, claims it, or knows of no rewinds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

import pgflow
from pgflow.store.queries.histories import Histories
from tests.crashing import until_killed
from tests.operate.test_rewind import WORKFLOWS, Note, listening, parent, sequence
from tests.schema.waits import Waits
from tests.store.scene import Scene
from tests.waiting import until

BEFORE = Path(__file__).parent / "before_rewinds"
"""Statements as they were before there were rewinds."""

SETTLED = "55000"


@pytest.fixture
def waits() -> Iterator[Waits]:
    with ThreadPoolExecutor(4) as threads:
        yield Waits(threads)


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    scene = Scene(dsn)
    yield scene
    scene.close()


async def ended(dsn: str, **asked: Any) -> UUID:
    """A workflow that is completed."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(sequence, "c", **asked)
        await handle.output(timeout=60)
        return handle.id


async def paused(dsn: str) -> UUID:
    """One that is paused, and has taken a note."""
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = await client.dispatch(listening, 2, 0)
        await handle.signal(Note("a"))

        async def taken() -> bool:
            return (await handle.info()).status == "sleeping" and (await handle.history())[0].status == "completed"

        await until(taken, "the first note")
        await handle.pause()
        return handle.id


async def test_two_at_once(dsn: str, scene: Scene, waits: Waits) -> None:
    """One is done, the other is refused."""
    id = await ended(dsn)
    with scene.other() as one, scene.other() as other:
        one.execute("SELECT rewind(%s, '2')", [id])
        late = waits.blocked(other, "SELECT rewind(%s, '1')", id)
        one.commit()
        with pytest.raises(psycopg.Error, match="somebody else has rewound the workflow") as caught:
            late.result()
        assert caught.value.sqlstate == SETTLED
    assert scene.one("SELECT rewinds FROM workflows") == ["2"]


@pytest.mark.parametrize("first", ["rewind", "resume", "cancel", "pause"])
async def test_beside_another_operation(dsn: str, scene: Scene, waits: Waits, first: str) -> None:
    """Of a paused workflow: whoever comes later finds what the other has made of it."""
    id = await paused(dsn)
    with scene.other() as one, scene.other() as other:
        if first == "rewind":
            one.execute("SELECT rewind(%s, '1')", [id])
            late = waits.blocked(other, "SELECT resume(%s)", id)
            one.commit()
            assert late.result() == (False,)  # it goes on already
            other.commit()
        else:
            one.execute(f"SELECT {first}(%s)".encode(), [id])
            if first == "cancel":  # a request, which is delivered afterwards
                other.execute("SELECT rewind(%s, '1')", [id])
                other.commit()
                one.commit()
            else:
                late = waits.blocked(other, "SELECT rewind(%s, '1')", id)
                one.commit()
                if first == "pause":
                    late.result()
                    other.commit()
                else:
                    with pytest.raises(psycopg.Error, match="is pending, expected one that is paused"):
                        late.result()
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        handle = pgflow.WorkflowHandle(client, id, listening)
        if first == "cancel":
            with pytest.raises(pgflow.WorkflowCancelled):
                await handle.output(timeout=60)
        else:
            await handle.signal(Note("b"))
            assert await handle.output(timeout=60) == ["a", "b"]


async def test_a_cancel_of_before_the_end_is_over(dsn: str, scene: Scene) -> None:
    """Asked for and not delivered when the workflow ended: the rewound one is not cancelled by it."""
    id = await ended(dsn)
    scene.do("INSERT INTO requests (workflow_id, kind) VALUES (%s, 'cancel')", id)
    scene.one("SELECT rewind(%s, '2')::text", id)
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        assert (await pgflow.WorkflowHandle(client, id, sequence).output(timeout=60))[:2] == ["a", "b"]


async def test_one_that_is_removed_meanwhile(dsn: str, scene: Scene, waits: Waits) -> None:
    id = await ended(dsn)
    with scene.other() as one, scene.other() as other:
        one.execute("UPDATE workflows SET status = 'removing'")
        late = waits.blocked(other, "SELECT rewind(%s, '2')", id)
        one.commit()
        with pytest.raises(psycopg.Error, match="rewind: there is no workflow"):
            late.result()


async def test_beside_the_start_of_another_of_its_key(dsn: str, scene: Scene, waits: Waits) -> None:
    id = await ended(dsn, unique=True, tags={"order": 7})
    with scene.other() as one, scene.other() as other:
        start = "SELECT dispatch('sequence', '{}', '{\"order\": 7}', is_unique => true)"
        one.execute(start.encode())
        late = waits.blocked(other, "SELECT rewind(%s, '2')", id)
        one.commit()
        with pytest.raises(psycopg.Error, match="is unique, and at this moment another one"):
            late.result()
        other.rollback()
        one.execute("SELECT terminate(workflow_id) FROM runs")
        one.commit()
        one.execute("SELECT rewind(%s, '2')", [id])
        second = waits.blocked(other, start)
        one.commit()
        assert second.result() == (id,)


def statement(name: str) -> str:
    return (BEFORE / f"{name}.sql").read_text(encoding="utf-8").replace("{schema}", '"pgflow"')


async def test_workers_of_before_do_not_find_it(dsn: str, scene: Scene) -> None:
    """Their ids would be those that were used already: whatever state it is in, their claims pass it over."""
    id = await ended(dsn)
    scene.one("SELECT rewind(%s, '2')::text", id)
    worker = scene.worker()
    asked = {
        "worker": worker,
        "claim": 1,
        "limit": 10,
        "horizon": 60.0,
        "patience": "0",
        "queues": ["default"],
        "names": ["sequence"],
        "priorities": [0],
        "since": [datetime(1, 1, 2, tzinfo=UTC)],
        "gap_queues": ["default"] * 2,
        "gap_names": ["sequence"] * 2,
        "above": [-(2**31) - 1, 0],
        "below": [0, 2**31],
        "ids": [id],
        "places": [10, 10, 10],
    }

    def claimed() -> list[Any]:
        with scene.other() as old:
            lines = [*old.execute(statement("claim").encode(), asked).fetchall()[1:]]
            lines += [line for line in old.execute(statement("claim_suspected").encode(), asked).fetchall() if line[1]]
            lines += old.execute(statement("claim_hinted").encode(), asked).fetchall()
            old.rollback()
        return lines

    assert claimed() == []
    for change in (
        "suspicions = ARRAY[1]",
        "status = 'sleeping', suspicions = NULL",
        "priority = 7",
        "epoch = 0, status = 'pending', priority = 0",
    ):
        scene.do(f"UPDATE runs SET {change}")
        assert claimed() == [], change
    scene.one("SELECT pause(%s)", id)
    scene.one("SELECT resume(%s)", id)
    assert claimed() == []
    scene.do("UPDATE runs SET name = 'sequence'")
    assert len(claimed()) == 1  # so they would find it under its name
    scene.do("UPDATE runs SET name = 'sequence' || chr(31), epoch = 7")
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=WORKFLOWS):
        assert (await pgflow.WorkflowHandle(client, id, sequence).output(timeout=60))[:2] == ["a", "b"]


async def test_lists_show_it_under_its_name(dsn: str, scene: Scene) -> None:
    id = await paused(dsn)
    scene.one("SELECT rewind(%s, '1')::text", id)
    async with pgflow.Client(dsn) as client:
        for status in ("pending", "paused", "failed"):
            failed = "failed" if status == "failed" else None
            scene.do('UPDATE workflows SET status = %s, error = \'{"type": "E"}\', completed_at = now()', failed)
            scene.do("UPDATE runs SET status = %s", status)
            for asked in ({"status": status}, {}):
                (found,) = await client.list(name="listening", **asked)  # type: ignore[arg-type]
                assert (found.id, found.name, found.status) == (id, "listening", status)
                assert await client.count(name="listening", **asked) == 1  # type: ignore[arg-type]
            with psycopg.connect(dsn, autocommit=True) as reading:
                assert [one.id for one in Histories(reading, "pgflow").select(["listening"], [status], 9)] == [id]
        (found,) = await client.list(name="listening", error_type="E")
        assert found.id == id
        await client.retry(id)
        await client.terminate(id)
        (found,) = await client.list(name="listening", status="cancelled")
        assert (found.name, found.queue) == ("listening", "default")
    assert scene.all("SELECT name FROM ends") == ["listening"]


async def test_killed_at_each_moment(dsn: str, scene: Scene) -> None:
    """Processes that run the rewound workflow die one after the other: nothing is done twice, or under an old id."""
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            handle = await client.dispatch(parent, "quick")
            assert await handle.output(timeout=60) == ["before", "quick"]
        await handle.rewind(before="{1}")
        for point in ("journal.before", "crossings.before", "crossings.after", "journal.after"):
            await until_killed(dsn, "tests.operate.test_rewind", point)
        async with pgflow.Worker(dsn, workflows=WORKFLOWS):
            assert await handle.output(timeout=60) == ["before", "quick"]
    children = scene.all("SELECT id FROM workflows WHERE parent_id = %s", handle.id)
    recorded = "SELECT output->>'id' FROM history WHERE workflow_id = %s AND kind = 'child_workflow' ORDER BY rewind"
    found = scene.all(recorded, handle.id)
    assert len(children) == len(found) == 2 and {UUID(id) for id in found} == set(children)
