"""Reading workflows and their history: statements for the clients and for `pgflow workflow`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from pgflow.codec import decode_error
from pgflow.codec.unreadable import parsed, shown, shown_object
from pgflow.model.info import AuditEntry, HistoryEvent, WorkflowInfo
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query

_OF_AUDIT = {
    "workflow_id": b"a.workflow_id = %(workflow_id)s::uuid",
    "actor": b"a.actor = %(actor)s::text",
    "operation": b"a.operation = %(operation)s::text",
    "since": b"a.at >= %(since)s::timestamptz",
    # An entry that has been removed was older than all that are there: nothing comes after it.
    "after": b"(a.at, a.id) < "
    b"((SELECT l.at FROM {schema}.audit AS l WHERE l.id = %(after)s::bigint), %(after)s::bigint)",
}


def get(schema: str, ids: Iterable[UUID]) -> Query[list[WorkflowInfo]]:
    """The statement that reads workflows by id; unknown ones are missing in its answer."""
    return Query(statement("inspect_get", schema), {"ids": list(ids)}, infos_of)


def history(schema: str, workflow_id: UUID, forgotten: bool, limit: int) -> Query[list[HistoryEvent]]:
    """The statement that reads a workflow's history in order, with its forgotten rows if asked for."""
    asked = {"id": workflow_id, "forgotten": forgotten, "limit": limit}
    return Query(statement("inspect_history", schema), asked, _events)


def pending(schema: str, workflow_id: UUID, limit: int) -> Query[list[HistoryEvent]]:
    """The statement that reads what a workflow waits for: its pending steps, in order."""
    return Query(statement("inspect_pending", schema), {"id": workflow_id, "limit": limit}, _events)


def audit(schema: str, *, limit: int, **asked: Any) -> Query[list[AuditEntry]]:
    """The statement that lists what operators did, the last first.

    Args:
        limit: how many, at most.
        asked: `workflow_id`, `actor`, `operation`, `since`, and the entry `after` which to go on; None: any.
    """
    given = {key: value for key, value in asked.items() if value is not None}
    conditions = b" AND ".join(_OF_AUDIT[key] for key in given) or b"true"
    text = statement("audit_list", schema).replace(b"{conditions}", conditions)
    text = text.replace(b"{limit}", str(int(limit)).encode()).replace(b"{schema}", quoted(schema).encode())
    return Query(text, given, _entries)


def infos_of(rows: Sequence[tuple[Any, ...]]) -> list[WorkflowInfo]:
    """The workflows in rows that have the columns of `inspect_get.sql`."""
    infos = []
    for row in rows:
        values = list(row)
        values[5:9] = shown_object(row[5]), shown_object(json_of(row[6])), json_of(row[7]), _error(row[8])
        values[12] = list(row[12] or ())
        infos.append(WorkflowInfo(*values))
    return infos


def _events(rows: Sequence[tuple[Any, ...]]) -> list[HistoryEvent]:
    events = []
    for row in rows:
        values = list(row)
        values[7:10] = json_of(row[7]), json_of(row[8]), _error(row[9])
        events.append(HistoryEvent(*values))
    return events


def _entries(rows: Sequence[tuple[Any, ...]]) -> list[AuditEntry]:
    return [AuditEntry(*most, None if found is None else shown_object(found)) for *most, found in rows]  # type: ignore[call-arg]


def json_of(text: str | None) -> Any:
    """The value of a JSON text, if there is one, as far as it can be read."""
    return None if text is None else shown(parsed(text))


def _error(text: str | None) -> dict[str, Any] | None:
    return None if text is None else decode_error(text)
