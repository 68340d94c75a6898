"""Signals that were set aside: statements that list them, deliver them again and drop them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from pgflow.model.info import DeadSignal
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query
from pgflow.store.queries.inspection import json_of
from pgflow.store.queries.operating import AuditNote, call


def find(
    schema: str, *, workflow_id: UUID | None, name: str | None, after: UUID | None, limit: int
) -> Query[list[DeadSignal]]:
    """The statement that lists signals that were set aside, by their ids."""
    asked = {"workflow_id": workflow_id, "name": name, "after": after, "limit": limit}
    return Query(statement("dead_signals", schema), asked, _signals)


def redeliver(
    schema: str, signal_id: UUID, body: str | None, payload_limit: int, hints: bool, note: AuditNote
) -> Query[UUID]:
    """The statement that delivers one again, with the JSON text of another body if there is one."""
    asked = {"id": signal_id, "body": body, "payload_limit": str(payload_limit), "quiet": not hints, **note._asdict()}
    return Query(statement("dead_signal_again", schema), asked, _first)


def drop(schema: str, signal_id: UUID, note: AuditNote) -> Query[UUID]:
    """The statement that gives one up."""
    return call(schema, "drop_signal(%(id)s::uuid", {"id": signal_id}, note)


def _signals(rows: Sequence[tuple[Any, ...]]) -> list[DeadSignal]:
    return [DeadSignal(*row[:4], json_of(row[4]), *row[5:]) for row in rows]  # type: ignore[call-arg]


def _first(rows: Sequence[tuple[Any, ...]]) -> Any:
    return rows[0][0]
