"""Workflows and signals made by SQL, what the table `audit` holds of them, and clients of both kinds called alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg

import pgflow


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def rows(dsn: str) -> list[Any]:
    """What was written down, but for when and by which role."""
    return ask(dsn, "SELECT operation, workflow_id, actor, reason, subject FROM pgflow.audit ORDER BY id")


def count(dsn: str) -> int:
    return len(rows(dsn))


def new(dsn: str, how: str = "pending") -> UUID:
    """A workflow that stands somehow: pending, paused, sleeping, failed with a step behind it, ended."""
    id: UUID
    ((id,),) = ask(dsn, "SELECT pgflow.dispatch('flow')")
    ask(dsn, "UPDATE pgflow.runs SET epoch = 1 WHERE workflow_id = %s", id)  # a worker has had it
    if how in ("paused", "sleeping"):
        ask(dsn, "UPDATE pgflow.runs SET status = %s WHERE workflow_id = %s", how, id)
    elif how == "failed":
        ask(dsn, "UPDATE pgflow.runs SET status = 'failed', wake_at = NULL, reset = '{1}' WHERE workflow_id = %s", id)
        ask(dsn, "UPDATE pgflow.workflows SET status = 'failed', error = '{}', completed_at = now() WHERE id = %s", id)
        ask(
            dsn,
            "INSERT INTO pgflow.events (workflow_id, location, kind, name, status, attempts, seq, completed_at) "
            "VALUES (%s, '1', 'activity', 'ask', 'failed', 5, 1, now())",
            id,
        )
    elif how == "completed":
        ask(dsn, "DELETE FROM pgflow.runs WHERE workflow_id = %s", id)
        ask(dsn, "UPDATE pgflow.workflows SET status = 'completed', completed_at = now() WHERE id = %s", id)
    return id


def dead(dsn: str, workflow_id: UUID) -> UUID:
    """A signal that was set aside."""
    id = uuid4()
    ask(
        dsn,
        "INSERT INTO pgflow.signals (id, workflow_id, name, body, number, dropped_at, problem) "
        "VALUES (%s, %s, 'go', '{}', 1, now(), 'unfit')",
        id,
        workflow_id,
    )
    return id


class Both:
    """One client, of either kind, called the same way."""

    def __init__(self, client: pgflow.Client | pgflow.SyncClient) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            found = getattr(self.client, name)(*args, **kwargs)
            return await found if inspect.isawaitable(found) else found

        return call
