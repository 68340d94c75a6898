"""A statement for a client, as plain data: what to send and how to read the answer.

The asynchronous and the synchronous client, and tools for people, share these. They are executed on any psycopg
connection, also within a caller's own transaction:

    result = await ask(connection, query)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import psycopg
from psycopg.rows import TupleRow

T = TypeVar("T")


class Query(NamedTuple, Generic[T]):
    """One statement, its parameters and the reading of its rows (tuples, all of them at once)."""

    sql: bytes
    params: Mapping[str, Any]
    read: Callable[[Sequence[tuple[Any, ...]]], T]
    again: Callable[[], Query[T]] | None = None
    """What to send instead if this has met a row that is there already: another try would meet it as well."""


async def ask(connection: psycopg.AsyncConnection[TupleRow], query: Query[T]) -> T:
    """Execute a statement as it is, and read its answer."""
    cursor = await connection.execute(query.sql, query.params)
    return query.read(await cursor.fetchall())


def ask_blocking(connection: psycopg.Connection[TupleRow], query: Query[T]) -> T:
    """As `ask`, on a synchronous connection."""
    return query.read(connection.execute(query.sql, query.params).fetchall())
