"""Lists are in the order of dispatch, the youngest first, whatever the ids are. About 4 seconds."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import pgflow
from pgflow.client.filters import Filter
from pgflow.store.queries.histories import Histories


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, n: int = 0) -> None: ...


@pgflow.workflow
async def parent(ctx: pgflow.WorkflowContext, children: int) -> None:
    for n in range(children):
        await ctx.dispatch(job, n, detached=True)


def numbers(listed: list[pgflow.WorkflowInfo]) -> list[int]:
    return [info.input["n"] for info in listed]


def test_whatever_the_ids_are(dsn: str) -> None:
    """Of the callers' own, random or counted backwards; and those of one transaction in the order in which they were
    given.
    """
    with pgflow.SyncClient(dsn) as client:
        for n in range(20):
            client.dispatch(job, n, id=uuid.uuid4() if n % 2 else uuid.UUID(int=1000 - n), tags={"half": n // 10})
        client.dispatch_many(job, [{"n": n} for n in range(20, 25)], tags={"half": 2})
        assert numbers(client.list()) == list(range(24, -1, -1))
        assert numbers(client.list(limit=7)) == list(range(24, 17, -1))
        assert numbers(client.list("job", "pending", limit=7)) == list(range(24, 17, -1))
        assert numbers(client.list(tags={"half": 1})) == list(range(19, 9, -1))
        assert numbers(client.list(queue="default", limit=3)) == [24, 23, 22]


async def test_children(dsn: str) -> None:
    async with pgflow.Client(dsn) as client, pgflow.Worker(dsn, workflows=[parent, job]):
        handle = await client.dispatch(parent, 8)
        await handle.output(30)
        assert numbers(await client.list(parent_id=handle.id)) == list(range(7, -1, -1))


@pytest.mark.parametrize(
    "asked", [{}, {"name": "job"}, {"status": "pending"}, {"tags": {"all": 1}}, {"queue": "default"}]
)
@pytest.mark.parametrize("by", ["cursor", "id", "before"])
def test_page_by_page(dsn: str, asked: dict[str, Any], by: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        for n in range(5):
            client.dispatch(job, n, id=uuid.uuid4(), tags={"all": 1})
        client.dispatch_many(job, [{"n": n} for n in range(5, 13)], tags={"all": 1})
        found: list[int] = []
        page = client.list(limit=3, **asked)
        while page:
            found += numbers(page)
            assert (page.cursor is None) == (len(page) < 3)
            place: dict[str, Any] = {"after": page.cursor or page[-1].id} if by == "cursor" else {"after": page[-1].id}
            page = client.list(limit=3, **asked, **({"before": str(page[-1].id)} if by == "before" else place))
        assert found == list(range(12, -1, -1)) and page.cursor is None


def test_a_page_whose_last_is_gone(dsn: str) -> None:
    """A cursor goes on where it was; an id that says nothing any more is no end of the list."""
    with pgflow.SyncClient(dsn) as client:
        for n in range(6):
            client.dispatch(job, n)
        page = client.list(limit=2)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM pgflow.workflows WHERE id = %s", [page[-1].id])
        assert numbers(client.list(after=page.cursor)) == [3, 2, 1, 0]
        with pytest.raises(pgflow.WorkflowNotFound, match=str(page[-1].id)):
            client.list(after=page[-1].id)
        for nonsense in ("x", "2030-01-01/x", "/", 7):
            with pytest.raises(ValueError, match="expected the cursor of a page, or a workflow's UUID"):
                client.list(after=nonsense)  # type: ignore[arg-type]


def test_what_a_replay_of_histories_begins_with(dsn: str) -> None:
    with pgflow.SyncClient(dsn) as client:
        for n in range(6):
            client.dispatch(job, n, id=uuid.uuid4())
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "WITH ended AS (UPDATE pgflow.workflows SET status = 'completed' WHERE (input->>'n')::int < 4 "
                "RETURNING id) DELETE FROM pgflow.runs USING ended WHERE workflow_id = ended.id"
            )
            chosen = list(Histories(connection, "pgflow").select(["job"], ["pending", "completed"], 4))
    assert {json.loads(history.input)["n"] for history in chosen} == {5, 4, 3, 2}


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({}, "workflows_created"),
        ({"after": uuid.UUID(int=1)}, "workflows_created"),
        ({"after": f"2030-01-01T00:00:00+00:00/{uuid.UUID(int=1)}"}, "workflows_created"),
        ({"name": "few"}, "workflows_name"),
        ({"name": "many", "after": uuid.UUID(int=1)}, "workflows_name"),
        ({"name": "few", "created_before": datetime(2000, 1, 1, tzinfo=UTC)}, "workflows_name"),
    ],
)
def test_a_page_takes_no_more_than_itself(dsn: str, asked: dict[str, Any], index: str) -> None:
    """It is read from the end of an index, however many there are."""
    query = Filter(limit=10, **asked).query("pgflow")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pgflow.workflows (id, name, input, status, created_at) "
            "SELECT gen_random_uuid(), CASE WHEN n %% 100 = 0 THEN 'few' ELSE 'many' END, '{}', "
            "CASE WHEN n %% 2 = 0 THEN 'completed' END, now() - n * %s FROM generate_series(1, 20000) AS n",
            [timedelta(seconds=1)],
        )
        connection.execute(
            "INSERT INTO pgflow.runs (workflow_id, name, status, wake_at) SELECT id, name, 'pending', now() "
            "FROM pgflow.workflows WHERE status IS NULL"
        )
        connection.execute("VACUUM (ANALYZE) pgflow.workflows, pgflow.runs")
        row = connection.execute(b"EXPLAIN (ANALYZE, FORMAT JSON) " + query.sql, query.params).fetchone()
        assert row is not None
        nodes = list(every(row[0]))
        assert index in {node.get("Index Name") for node in nodes}
        assert all(node["Actual Rows"] * node["Actual Loops"] < 100 for node in nodes)


def every(tree: Any) -> Any:
    """All nodes of a plan."""
    if isinstance(tree, dict):
        if "Node Type" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from every(each)
