"""What a step and its workflow write to the server's log is bounded by what their rows hold and where
the rows stand.
"""

from __future__ import annotations

from uuid import UUID

from pgflow.model.outcomes import Completed
from pgflow.store.journal.journal import Journal
from pgflow.store.leasing.claims import Claims
from pgflow.uuid7 import uuid7
from tests.store.scene import Scene, row

MANY = 300
"""Workflows: some pages full."""


async def test_a_row_says_once_when_it_was_written_and_ended(scene: Scene, worker: int, journal: Journal) -> None:
    """The view shows both."""
    workflow = scene.run(worker)
    first = scene.write(workflow, [row("1"), row("2", None, status="pending"), row("3,1", iteration=2)])
    journal.write(first)
    assert await scene.fates(first) == ["committed"]
    at = scene.told(first)
    asked = "SELECT location, iteration, created_at, completed_at FROM {} ORDER BY location"
    assert scene.all(asked.format("events")) == [("1", 0, at, None), ("2", 0, at, None), ("3,1", 2, at, None)]
    assert scene.all(asked.format("history")) == [("1", 0, at, at), ("2", 0, at, None), ("3,1", 2, at, at)]

    second = scene.write(workflow, [row("2", None, status="failed", error='{"type": "E"}')])
    journal.write(second)
    assert await scene.fates(second) == ["committed"]
    later = scene.told(second)
    assert later > at
    assert scene.all(asked.format("events"))[1] == ("2", 0, at, later)
    assert scene.all(asked.format("history"))[1] == ("2", 0, at, later)


async def test_claims_and_ends_leave_rows_on_their_pages(scene: Scene, worker: int, journal: Journal) -> None:
    """A workflow's row that moves to another page costs an entry in each index, and a run's a longer record."""
    ids = [uuid7() for _ in range(MANY)]
    scene.do("INSERT INTO workflows (id, name, input) SELECT id, 'flow', '{}' FROM unnest(%s::uuid[]) AS id", ids)
    scene.do(
        "INSERT INTO runs (workflow_id, name, status, wake_at) SELECT id, 'flow', 'pending', now() FROM "
        "unnest(%s::uuid[]) AS id",
        ids,
    )

    def pages(table: str, key: str) -> dict[UUID, int]:
        return dict(scene.all(f"SELECT {key}, (ctid::text::point)[0]::int FROM {table}"))

    dispatched = pages("workflows", "id"), pages("runs", "workflow_id")
    assert all(len(set(where.values())) > 3 for where in dispatched), "enough for some to be full"
    claims = Claims(scene.database, worker)
    taken = (await claims.claim(MANY, ["default"], ["flow"])).runs
    await claims.close()
    assert len(taken) == MANY
    assert pages("runs", "workflow_id") == dispatched[1]

    ends = [scene.write(run.workflow_id, [], Completed("55"), epoch=run.epoch) for run in taken]
    for end in ends:
        journal.write(end)
    assert set(await scene.fates(*ends)) == {"committed"}
    assert scene.one("SELECT count(*) FROM workflows WHERE status = 'completed'") == MANY
    assert pages("workflows", "id") == dispatched[0]
