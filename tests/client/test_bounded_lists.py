"""Lists and counts look at a bounded number of rows, however many there are and however they are distributed: read off
the plans that the server made. About 10 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pgflow.client.filters import Filter
from pgflow.store.queries import listing
from tests import databases

ROWS = 20_000
BOUND = 2_500
"""Of rows that one node of a plan gives, or throws away: a few times `SCAN` and `FEW` as they are set here, and an
eighth of all.
"""

BEGAN = datetime(2031, 1, 1, tzinfo=UTC)
PARENT = UUID(int=1)

FILL = """
INSERT INTO pgflow.workflows (id, name, tags, input, parent_id, created_at)
SELECT md5(n::text)::uuid, CASE WHEN n %% 500 = 0 THEN 'rare' ELSE 'common' END,
    CASE WHEN n %% 1000 = 1 THEN '{"all": 1, "few": 1}' ELSE '{"all": 1}' END::jsonb, '{}',
    CASE WHEN n <= %(rows)s / 2 THEN %(parent)s::uuid END, %(began)s::timestamptz + (n / 5000) * interval '1 hour'
FROM generate_series(1, %(rows)s) AS n;
INSERT INTO pgflow.runs (workflow_id, name, queue, status, wake_at, waiting_for, created_at)
SELECT id, name, CASE WHEN n %% 400 = 3 THEN 'slow' ELSE 'default' END,
    CASE n %% 1000 WHEN 5 THEN 'sleeping' WHEN 6 THEN 'paused' ELSE 'pending' END,
    CASE WHEN n %% 1000 <> 5 THEN now() END, CASE WHEN n %% 1000 = 5 THEN ARRAY['approved'] END, created_at
FROM (SELECT *, row_number() OVER (ORDER BY created_at, id) AS n FROM pgflow.workflows) AS w;
UPDATE pgflow.workflows AS w SET status = s.status, completed_at = w.created_at + interval '5 s',
    error = CASE WHEN s.status = 'failed' THEN '{"type": "OSError"}'::json END
FROM (
    SELECT workflow_id, CASE number %% 1000 WHEN 7 THEN 'failed' WHEN 8 THEN 'cancelled' ELSE 'completed' END AS status
    FROM (
        SELECT workflow_id, row_number() OVER (ORDER BY workflow_id) AS number FROM pgflow.runs WHERE status = 'pending'
    ) AS r
) AS s WHERE s.workflow_id = w.id AND %(ended)s;
UPDATE pgflow.runs AS r SET status = 'failed', wake_at = NULL FROM pgflow.workflows AS w
WHERE w.id = r.workflow_id AND w.status = 'failed';
DELETE FROM pgflow.runs AS r USING pgflow.workflows AS w
WHERE w.id = r.workflow_id AND w.status IN ('completed', 'cancelled')
"""

ASKED: list[dict[str, Any]] = [
    {},
    {"name": "rare"},
    {"status": "completed"},
    {"status": "pending"},
    {"status": "sleeping"},
    {"status": "running"},
    {"status": "paused"},
    {"status": "failed"},
    {"status": "cancelled"},
    {"status": ["failed", "cancelled", "paused"]},
    {"name": "rare", "status": "failed"},
    {"name": "common", "status": "cancelled"},
    {"name": "common", "error_type": "OSError"},
    {"error_type": "none"},
    {"tags": {"all": 1}},
    {"tags": {"few": 1}},
    {"tags": {"none": 1}},
    {"queue": "slow"},
    {"queue": "none"},
    {"queue": "default"},
    {"parent_id": PARENT},
    {"parent_id": PARENT, "name": "none"},
    {"waiting_for": "approved"},
    {"ended_before": BEGAN + timedelta(hours=1)},
    {"ended_before": BEGAN},
    {"ended_after": BEGAN + timedelta(days=1)},
    {"tags": {"all": 1}, "queue": "slow"},
    {"status": "completed", "queue": "slow"},
    {"name": "common", "tags": {"none": 1}},
    {"created_after": BEGAN + timedelta(hours=1), "created_before": BEGAN + timedelta(hours=2), "status": "completed"},
]


@pytest.fixture(scope="module", params=[True, False], ids=["nearly all have ended", "nearly all are pending"])
def filled(request: pytest.FixtureRequest, server_dsn: str, template: str) -> Iterator[psycopg.Connection[Any]]:
    """Thousands were dispatched at each of a few moments."""
    with databases.database(server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True) as sql:
        given = {"rows": ROWS, "parent": PARENT, "began": BEGAN, "ended": request.param}
        psycopg.ClientCursor(sql).execute(FILL.encode(), given)
        sql.execute("VACUUM (ANALYZE)")
        yield sql


@pytest.mark.parametrize("asked", ASKED, ids=[str(asked) for asked in ASKED])
def test_work_is_bounded(
    filled: psycopg.Connection[Any], asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SCAN", 301), ("FEW", 200), ("SAMPLE", 30)):
        monkeypatch.setattr(listing, name, value)
    filter = Filter(limit=20, **asked)
    for query in (filter.query("pgflow"), filter.count("pgflow")):
        row = filled.execute(b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + query.sql, query.params).fetchone()
        assert row is not None
        for node in nodes(row[0]):
            kept = node["Actual Rows"]
            lost = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            assert (kept + lost) * node["Actual Loops"] <= BOUND, node


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    if isinstance(tree, dict):
        if "Node Type" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for each in tree:
            yield from nodes(each)
