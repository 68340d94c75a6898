"""Operating workflows: statements that cancel, pause, resume, retry, rewind, terminate, update, wake and fork
them.

Each is one of the schema's functions, so that a person with psql has the same as a client.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import psycopg

from pgflow.errors import PgflowError, WorkflowNotFound
from pgflow.model.info import Rewound
from pgflow.store.database.connections import is_out_of_patience, quoted
from pgflow.store.database.query import Query
from pgflow.store.queries.rights import denied
from pgflow.uuid7 import uuid7

T = TypeVar("T")

_NOT_FOUND = "P0002"
_DENIED = "42501"
_REFUSED = ("55000", "23505", "22023")


class AuditNote(NamedTuple):
    """What the table `audit` records of an operation.

    Attributes:
        actor: Who does it; None: the database's role.
        reason: Why; None: nothing is said.
    """

    actor: str | None
    reason: str | None


def cancel(schema: str, workflow_id: UUID, note: AuditNote) -> Query[bool]:
    """The statement that asks for a cancellation."""
    return call(schema, "cancel(%(id)s::uuid", {"id": workflow_id}, note)


def pause(schema: str, workflow_id: UUID, note: AuditNote) -> Query[bool]:
    """The statement that pauses."""
    return call(schema, "pause(%(id)s::uuid", {"id": workflow_id}, note)


def resume(schema: str, workflow_id: UUID, note: AuditNote) -> Query[bool]:
    """The statement that lets a paused workflow go on."""
    return call(schema, "resume(%(id)s::uuid", {"id": workflow_id}, note)


def retry(schema: str, workflow_id: UUID, note: AuditNote) -> Query[Any]:
    """The statement that runs a failed workflow again."""
    return call(schema, "retry(%(id)s::uuid", {"id": workflow_id}, note)


def terminate(schema: str, workflow_id: UUID, note: AuditNote) -> Query[bool]:
    """The statement that ends a workflow without its code."""
    return call(schema, "terminate(%(id)s::uuid", {"id": workflow_id}, note)


def wake(schema: str, workflow_id: UUID, note: AuditNote) -> Query[bool]:
    """The statement that lets a workflow that sleeps look again."""
    return call(schema, "wake(%(id)s::uuid", {"id": workflow_id}, note)


class ClaimChanges(NamedTuple):
    """What to change about a workflow that waits; None: it stays as it is."""

    queue: str | None
    priority: int | None
    run_at: datetime | None


def update(schema: str, workflow_id: UUID, changes: ClaimChanges, note: AuditNote) -> Query[bool]:
    """The statement that changes the columns by which claims choose: queue, priority, and when it is due."""
    called = "update_workflow(%(id)s::uuid, %(queue)s::text, %(priority)s::int, %(run_at)s::timestamptz"
    return call(schema, called, {"id": workflow_id, **changes._asdict()}, note)


def rewind(
    schema: str, workflow_id: UUID, before: str, children: str, dry_run: bool, note: AuditNote
) -> Query[Rewound]:
    """The statement that lets a workflow run again from before a stored location; sent twice, it does so once."""
    asked = {"id": workflow_id, "before": before, "children": children, "dry_run": dry_run, "request": uuid7()}
    begun = (
        "rewind(%(id)s::uuid, %(before)s::text, %(children)s::text, dry_run => %(dry_run)s::boolean, "
        "request => %(request)s::uuid"
    )
    return call(schema, begun, asked, note)._replace(read=_rewound)


def many(
    schema: str, operation: str, ids: Sequence[UUID], dry_run: bool, note: AuditNote
) -> Query[Sequence[tuple[UUID, str | None]]]:
    """The statement that does an operation to many workflows; it returns why each that refused did so."""
    text = (
        f"SELECT o.id, o.refused FROM {quoted(schema)}.operate_many(%(operation)s::text, %(ids)s::uuid[], "
        "reason => %(reason)s::text, actor => %(actor)s::text, dry_run => %(dry_run)s::boolean) AS o"
    )
    asked = {"operation": operation, "ids": list(ids), "dry_run": dry_run}
    return Query(text.encode(), {**asked, "reason": note.reason, "actor": note.actor}, _rows)


def fork(schema: str, workflow_id: UUID, before: str, new_id: UUID, queue: str | None, note: AuditNote) -> Query[UUID]:
    """The statement that starts a workflow from a copy of history before a location, in stored form."""
    asked = {"id": workflow_id, "before": before, "new_id": new_id, "queue": queue}
    return call(schema, "fork(%(id)s::uuid, %(before)s::text, %(new_id)s::uuid, %(queue)s::text", asked, note)


def quietly(query: Query[T]) -> Query[T]:
    """The same without a notification; in a caller's transaction, nothing after it notifies either."""
    silence = b"(SELECT set_config('pgflow.hints', 'off', true) OFFSET 0) AS quietly"
    called, source, rows = query.sql.partition(b" FROM ")
    return query._replace(sql=called + b" FROM " + silence + (b" CROSS JOIN LATERAL " + rows if source else b""))


def refusal(error: psycopg.Error) -> PgflowError | None:
    """The error by which one of these functions refuses; None: it is another error.

    Example:
        raise refusal(error) or error
    """
    diagnosis = error.diag
    text = diagnosis.message_primary or str(error)
    if diagnosis.message_hint:
        text = f"{text}. {diagnosis.message_hint}"
    if error.sqlstate == _NOT_FOUND:
        return WorkflowNotFound(text)
    if is_out_of_patience(error):
        return PgflowError(
            "expected to reach the workflow's row in time, but most likely somebody else's transaction has it "
            f"locked: {text}. Nothing was done: try again when that has ended (pg_blocking_pids tells whose it is)"
        )
    if error.sqlstate == _DENIED:
        return denied(error)
    return PgflowError(text) if error.sqlstate in _REFUSED else None


def call(schema: str, begun: str, params: dict[str, Any], note: AuditNote) -> Query[Any]:
    """The statement that calls an operating function.

    Args:
        begun: The beginning of the call, up to the arguments that all of them share.
    """
    text = f"SELECT {quoted(schema)}.{begun}, reason => %(reason)s::text, actor => %(actor)s::text)"
    return Query(text.encode(), {**params, "reason": note.reason, "actor": note.actor}, _first)


def _rows(rows: Sequence[tuple[Any, ...]]) -> Any:
    return rows


def _rewound(rows: Sequence[tuple[Any, ...]]) -> Rewound:
    told = rows[0][0]
    found = told if isinstance(told, dict) else json.loads(told)
    children, recorded_by = ([UUID(id) for id in found[key]] for key in ("children", "recorded_by"))
    return Rewound(found["rewind"], found["steps"], found["signals"], children, recorded_by)


def _first(rows: Sequence[tuple[Any, ...]]) -> Any:
    return rows[0][0]
