"""Reading workflows and their history: statements for the clients and for `pgflow workflow`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from pgflow.info import HistoryEvent, WorkflowInfo
from pgflow.store.connections import quoted, statement
from pgflow.store.query import Query

_CONDITIONS = {
    "name": b"o.name = %(name)s::text",
    "status": b"o.status = %(status)s::text",
    # As an array, so that the index on tags is taken; it leaves out workflows without tags, and so must this.
    "tags": b"o.id = ANY (ARRAY(SELECT w.id FROM {schema}.workflows AS w "
    b"WHERE w.tags @> %(tags)s::jsonb AND w.tags <> '{}'::jsonb))",
    "queue": b"o.queue = %(queue)s::text",
    "parent_id": b"o.parent_id = %(parent_id)s::uuid",
    "before": b"o.id < %(before)s::uuid",
}

_RUN_CONDITIONS = {
    "name": b"r.name = %(name)s::text",
    "status": b"r.status = %(status)s::text",
    "queue": b"r.queue = %(queue)s::text",
    "before": b"r.workflow_id < %(before)s::uuid",
}

_WITHOUT_RUN = ("completed", "cancelled")


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
        "tags": None if tags == "{}" else tags,
        "queue": queue,
        "parent_id": parent_id,
        "before": before,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    conditions = [_CONDITIONS[key] for key in given]
    if queue is not None or (status is not None and status not in _WITHOUT_RUN):
        conditions.append(_among_runs(given))
    parts = {
        b"{conditions}": b" AND ".join(conditions) or b"true",
        b"{limit}": str(int(limit)).encode(),
        b"{schema}": quoted(schema).encode(),
    }
    text = statement("inspect_list", schema)
    for mark, part in parts.items():
        text = text.replace(mark, part)
    return Query(text, given, _infos)


def _among_runs(given: Mapping[str, Any]) -> bytes:
    """Those that may go on are few beside those that have ended: they are found from their runs."""
    known = b" AND ".join(_RUN_CONDITIONS[key] for key in given if key in _RUN_CONDITIONS)
    enough = b" ORDER BY r.workflow_id DESC LIMIT {limit}" if _RUN_CONDITIONS.keys() >= given.keys() else b""
    return b"o.id = ANY (ARRAY(SELECT r.workflow_id FROM {schema}.runs AS r WHERE " + known + enough + b"))"


def history(schema: str, workflow_id: UUID, forgotten: bool, limit: int) -> Query[list[HistoryEvent]]:
    """The statement that reads a workflow's history in order, forgotten rows among it if asked for."""
    asked = {"id": workflow_id, "forgotten": forgotten, "limit": limit}
    return Query(statement("inspect_history", schema), asked, _events)


def pending(schema: str, workflow_id: UUID, limit: int) -> Query[list[HistoryEvent]]:
    """The statement that reads what a workflow waits for: its pending steps, in order."""
    return Query(statement("inspect_pending", schema), {"id": workflow_id, "limit": limit}, _events)


def _infos(rows: Sequence[tuple[Any, ...]]) -> list[WorkflowInfo]:
    infos = []
    for row in rows:
        values = list(row)
        values[6:9] = map(json_of, row[6:9])
        values[12] = list(row[12] or ())
        infos.append(WorkflowInfo(*values))
    return infos


def _events(rows: Sequence[tuple[Any, ...]]) -> list[HistoryEvent]:
    return [HistoryEvent(*row[:7], *map(json_of, row[7:10]), *row[10:]) for row in rows]


def json_of(text: str | None) -> Any:
    """The value of a JSON text, if there is one."""
    return None if text is None else json.loads(text)
