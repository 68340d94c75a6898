"""Hints within a caller's transaction, where they are allowed: an error would end it."""

from __future__ import annotations

from typing import Any

from pgflow.store.client.on_loop import execute_on
from pgflow.store.queries.dispatching import may_notify, wake
from pgflow.store.queries.signalling import expect, mail

__all__ = ["execute_on", "expect_on", "mail_on", "wake_on"]


async def wake_on(connection: Any, schema: str, queue: str) -> None:
    """Hint that a queue will have work."""
    if await execute_on(connection, may_notify(schema)):
        await execute_on(connection, wake(schema, [queue]))


async def mail_on(connection: Any, schema: str, worker: int) -> None:
    """Hint that something will have been sent to a workflow that a worker has or had."""
    if await execute_on(connection, may_notify(schema)):
        await execute_on(connection, mail(schema, [worker]))


async def expect_on(connection: Any, schema: str, seconds: float) -> None:
    """Hint that a deadline will have been set, in so many seconds."""
    if await execute_on(connection, may_notify(schema)):
        await execute_on(connection, expect(schema, seconds))
