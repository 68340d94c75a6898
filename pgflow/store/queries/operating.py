"""Operating one workflow: statements that cancel, pause, resume, retry and fork it.

Each is one of the schema's functions, so that a person with psql has the same as a client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from pgflow.errors import PgflowError, WorkflowNotFound
from pgflow.store.database.connections import is_out_of_patience, quoted
from pgflow.store.database.query import Query

T = TypeVar("T")

_NOT_FOUND = "P0002"
_REFUSED = ("55000", "23505", "22023")


def cancel(schema: str, workflow_id: UUID) -> Query[bool]:
    """The statement that asks for a cancellation."""
    return _call(schema, "cancel(%(id)s::uuid)", {"id": workflow_id})


def pause(schema: str, workflow_id: UUID) -> Query[bool]:
    """The statement that pauses."""
    return _call(schema, "pause(%(id)s::uuid)", {"id": workflow_id})


def resume(schema: str, workflow_id: UUID) -> Query[bool]:
    """The statement that lets a paused workflow go on."""
    return _call(schema, "resume(%(id)s::uuid)", {"id": workflow_id})


def retry(schema: str, workflow_id: UUID) -> Query[Any]:
    """The statement that runs a failed workflow again."""
    return _call(schema, "retry(%(id)s::uuid)", {"id": workflow_id})


def fork(schema: str, workflow_id: UUID, before: str, new_id: UUID, queue: str | None) -> Query[UUID]:
    """The statement that starts a workflow from a copy of history before a location, in stored form."""
    asked = {"id": workflow_id, "before": before, "new_id": new_id, "queue": queue}
    return _call(schema, "fork(%(id)s::uuid, %(before)s::text, %(new_id)s::uuid, %(queue)s::text)", asked)


def quietly(query: Query[T]) -> Query[T]:
    """The same, but that nobody is notified of it; in a caller's transaction of nothing that comes after it either."""
    return query._replace(sql=query.sql + b" FROM (SELECT set_config('pgflow.hints', 'off', true) OFFSET 0) AS quietly")


def refusal(error: psycopg.Error) -> PgflowError | None:
    """What one of these functions says when it refuses; None: it is another error.

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
    return PgflowError(text) if error.sqlstate in _REFUSED else None


def _call(schema: str, call: str, params: dict[str, Any]) -> Query[Any]:
    return Query(f"SELECT {quoted(schema)}.{call}".encode(), params, _first)


def _first(rows: Sequence[tuple[Any, ...]]) -> Any:
    return rows[0][0]
