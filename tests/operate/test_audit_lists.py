"""Lists of what operators did: filters, pages, and what a list reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import pgflow
from pgflow.store.database.connections import Database
from tests.operate.audit_rows import Both, ask, new


async def test_a_list(dsn: str, kim: Both) -> None:
    """Filters, and page by page, also among rows of one transaction, which have one time."""
    flows = [new(dsn) for _ in range(3)]
    for flow in flows:
        await kim.pause(flow)
    with psycopg.connect(dsn) as connection:
        for _ in range(2):
            for flow in flows:
                connection.execute("SELECT pgflow.cancel(%s, actor => 'eva')", [flow])
    everything = await kim.audit()
    assert [entry.id for entry in everything] == sorted((entry.id for entry in everything), reverse=True)
    assert len(everything) == 9 and isinstance(everything[0], pgflow.AuditEntry)
    paged, after = [], None
    while page := await kim.audit(limit=2, after=after):
        paged += page
        after = page[-1].id
    assert paged == everything
    assert await kim.audit(str(flows[1])) == [entry for entry in everything if entry.workflow_id == flows[1]]
    assert await kim.audit(actor="eva") == [entry for entry in everything if entry.actor == "eva"]
    assert await kim.audit(operation="pause") == [entry for entry in everything if entry.operation == "pause"]
    assert await kim.audit(flows[0], actor="eva", operation="cancel", limit=1) == [everything[2]]
    assert await kim.audit(since=everything[0].at) == everything[:6]
    assert await kim.audit(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert await kim.audit(limit=0) == []


@pytest.mark.parametrize(
    "given",
    [
        {"workflow_id": "seven"},
        {"actor": 7},
        {"operation": "look"},
        {"since": datetime(2026, 1, 1)},
        {"limit": -1},
        {"after": "seven"},
        {"after": -1},
    ],
)
async def test_a_list_that_cannot_be(dsn: str, kim: Both, given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(ValueError, match="id=" if name == "workflow_id" else f"{name}="):
        await kim.audit(**given)


@pytest.mark.parametrize(
    ("given", "index"),
    [
        ({}, "audit_at"),
        ({"workflow_id": uuid4()}, "audit_workflow"),
        ({"actor": "kim"}, "audit_actor"),
        ({"since": datetime.now(UTC)}, "audit_at"),
    ],
)
def test_a_list_reads_no_more_than_it_tells(dsn: str, given: dict[str, Any], index: str) -> None:
    """By an index, in its order, whoever is asked for."""
    from pgflow.client.filters import AuditFilter

    ask(
        dsn,
        "INSERT INTO pgflow.audit (at, actor, role, operation, workflow_id) SELECT now() - n * interval '1 s', "
        "'actor ' || n, 'role', 'cancel', gen_random_uuid() FROM generate_series(1, 5000) AS n; "
        "ANALYZE pgflow.audit",
    )
    asked = {"workflow_id": None, "actor": None, "operation": None, "since": None, **given}
    query = AuditFilter(**asked, limit=10, after=None).query("pgflow")
    with Database(dsn).connect_blocking("explain") as connection:
        plan = connection.execute(b"EXPLAIN " + query.sql, query.params).fetchall()
    told = "\n".join(line for (line,) in plan)
    assert f"Index Scan Backward using {index}" in told and "Sort" not in told, told
