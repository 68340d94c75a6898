"""One connection of a client's on which the database is examined: statements that only read, each in a transaction of
its own that ends soon.
"""

from __future__ import annotations

from typing import TypeVar

import psycopg

from pgflow.store.client.on_loop import ask
from pgflow.store.database import pooler
from pgflow.store.database.connections import is_lost
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.database.query import Query
from pgflow.store.doctor.check import STATEMENT
from pgflow.store.schema import compatibility

T = TypeVar("T")


class ExaminingSession:
    """What the checks are made on.

    Args:
        connection: One that commits by itself.
        schema: The schema of pgflow's tables.
    """

    def __init__(self, connection: AsyncConnection, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    @property
    def is_shared(self) -> bool:
        """Whether it goes through a pooler."""
        return pooler.is_shared(self._connection)

    def is_lost(self, error: psycopg.Error) -> bool:
        """Whether no further statement can be sent after this error."""
        return is_lost(error, self._connection)

    async def state(self) -> tuple[compatibility.DatabaseState, tuple[int, int] | None]:
        """What has to be known of server and schema, and the versions of the schema if there is one.

        Raises:
            psycopg.Error: It cannot be read.
        """
        found = await self.ask(compatibility.find(self._schema))
        return found, await self.ask(compatibility.read(self._schema)) if found.migrated else None

    async def ask(self, query: Query[T]) -> T:
        """Execute a statement that takes a few seconds at most, and read its answer.

        Raises:
            psycopg.Error: It failed.
        """
        async with self._connection.transaction():
            await self._connection.execute(*pooler.opening(self._connection, int(STATEMENT * 1000)))
            return await ask(self._connection, query)
