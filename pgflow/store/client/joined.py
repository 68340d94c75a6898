"""Writing within a caller's transaction: the psycopg connection behind the object that the caller has."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row

from pgflow.store.database.adapters import OwnAsyncCursor, OwnCursor
from pgflow.store.database.query import Query

T = TypeVar("T")


async def execute_async(connection: Any, query: Query[T]) -> T:
    """Execute a query on an asynchronous or synchronous connection or session of the caller's.

    Raises:
        TypeError: it is no connection of psycopg's, nor SQLAlchemy over psycopg.
    """
    # SQLAlchemy is not imported here: a caller that has one of its objects has imported it, and the others do not pay
    # for it.
    if _is(connection, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session"):
        connection = await connection.connection()
    if _is(connection, "sqlalchemy.ext.asyncio", "AsyncConnection"):
        if not connection.in_transaction():
            await connection.begin()  # otherwise its commit() would not know that there is something to commit
        connection = (await connection.get_raw_connection()).driver_connection
    if isinstance(connection, psycopg.AsyncConnection):
        # Not connection.cursor(): the caller may have cursors of a kind that reads other placeholders, and adapters of
        # its own.
        async with OwnAsyncCursor(connection, row_factory=tuple_row) as cursor:
            await cursor.execute(query.sql, query.params)
            return query.read(await cursor.fetchall())
    return execute_blocking(connection, query)


def execute_blocking(connection: Any, query: Query[T]) -> T:
    """Execute a query on a synchronous connection or session of the caller's.

    Raises:
        TypeError: it is no synchronous connection of psycopg's, nor SQLAlchemy over psycopg.
    """
    found = connection
    if _is(found, "sqlalchemy.orm", "Session", "scoped_session"):
        found = found.connection()
    if _is(found, "sqlalchemy", "Connection"):
        if not found.in_transaction():
            found.begin()
        found = found.connection.driver_connection
    if not isinstance(found, psycopg.Connection):
        raise TypeError(
            f"connection={connection!r}: expected a psycopg connection, or a SQLAlchemy connection or session whose "
            "driver is psycopg 3 (postgresql+psycopg://); asynchronous ones go with the asynchronous client"
        )
    with OwnCursor(found, row_factory=tuple_row) as cursor:
        cursor.execute(query.sql, query.params)
        return query.read(cursor.fetchall())


def _is(value: object, module: str, *names: str) -> bool:
    """Whether `value` is an instance of one of the classes of a module, if that has been imported."""
    found = sys.modules.get(module)
    kinds = tuple(getattr(found, name) for name in names) if found is not None else ()
    return isinstance(value, kinds)
