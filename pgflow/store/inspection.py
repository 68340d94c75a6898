"""Reading workflows and their history: statements for the clients and for `pgflow workflow`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from pgflow.info import HistoryEvent, WorkflowInfo
from pgflow.store.connections import statement
from pgflow.store.query import Query


def get(schema: str, ids: Iterable[UUID]) -> Query[list[WorkflowInfo]]:
    """The statement that reads workflows by id; unknown ones are missing in its answer."""
    return Query(statement("inspect_get", schema), {"ids": list(ids)}, _infos)


def find(
    schema: str,
    *,
    name: str | None,
    status: str | None,
    tags: str | None,
    queue: str | None,
    parent_id: UUID | None,
    before: UUID | None,
    limit: int,
) -> Query[list[WorkflowInfo]]:
    """The statement that lists workflows, the youngest first.

    Args:
        tags: JSON of an object that the workflow's tags contain.
        before: only those dispatched before this one (to go on with a list).
        limit: how many, at most.
    """
    asked = {
        "name": name,
        "status": status,
        "tags": tags,
        "queue": queue,
        "parent_id": parent_id,
        "before": before,
        "limit": limit,
    }
    return Query(statement("inspect_list", schema), asked, _infos)


def history(schema: str, workflow_id: UUID, forgotten: bool, limit: int) -> Query[list[HistoryEvent]]:
    """The statement that reads a workflow's history in order, forgotten rows among it if asked for."""
    asked = {"id": workflow_id, "forgotten": forgotten, "limit": limit}
    return Query(statement("inspect_history", schema), asked, _events)


def _infos(rows: Sequence[tuple[Any, ...]]) -> list[WorkflowInfo]:
    infos = []
    for row in rows:
        values = list(row)
        values[6:9] = map(_json, row[6:9])
        values[12] = list(row[12] or ())
        infos.append(WorkflowInfo(*values))
    return infos


def _events(rows: Sequence[tuple[Any, ...]]) -> list[HistoryEvent]:
    return [HistoryEvent(*row[:7], *map(_json, row[7:10]), *row[10:]) for row in rows]


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)
