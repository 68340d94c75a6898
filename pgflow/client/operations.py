"""What an operator does with one workflow: the part of the client that cancels, pauses, resumes, retries and forks."""

from __future__ import annotations

from typing import Any, TypeVar
from uuid import UUID

from pgflow.client.core import Core
from pgflow.client.filters import location_of
from pgflow.client.handle import WorkflowHandle
from pgflow.definitions.options import check_queue, uuid_of
from pgflow.store.database.query import Query
from pgflow.store.queries import operating
from pgflow.uuid7 import uuid7

T = TypeVar("T")


class Operations:
    """The methods of a client that operate one workflow."""

    _core: Core

    async def cancel(self, id: UUID | str, *, connection: Any = None) -> bool:
        """Ask for a workflow to be cancelled: its code gets an `asyncio.CancelledError`, and may compensate.

        Parameters:
            connection: a connection or session of psycopg's or SQLAlchemy's whose transaction this joins.

        Returns:
            False when it has ended already.

        Raises:
            WorkflowNotFound: there is no such workflow.

        Example:
            await client.cancel(handle.id)
        """
        return await self._operate(operating.cancel(self._core.schema, uuid_of(id)), connection)

    async def pause(self, id: UUID | str) -> bool:
        """Let nobody go on with a workflow until `resume`. One that runs is paused when its activities in flight have
        ended.

        Returns:
            False when it has ended already.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        return await self._operate(operating.pause(self._core.schema, uuid_of(id)))

    async def resume(self, id: UUID | str) -> bool:
        """Let a paused workflow go on.

        Returns:
            False when it is not paused.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        return await self._operate(operating.resume(self._core.schema, uuid_of(id)))

    async def retry(self, id: UUID | str) -> None:
        """Run a failed workflow again from its history: the steps whose failures left it get a new set of attempts.

        Raises:
            WorkflowNotFound: there is no such workflow.
            PgflowError: it has not failed; its code had gone on from the failure (fork it); it is unique, and another
                live workflow has its name and tags.

        Example:
            await client.retry(handle.id)
        """
        await self._operate(operating.retry(self._core.schema, uuid_of(id)))

    async def fork(self, id: UUID | str, before: str, *, queue: str | None = None) -> WorkflowHandle[Any]:
        """Start a new workflow from a copy of another's history before a location.

        Parameters:
            before: the location of a step, as displayed or as stored; it and what comes after it runs anew.
            queue: the queue that workers serve; that of the other workflow if not given and still known.

        Raises:
            WorkflowNotFound: there is no such workflow, or no such step in its history.
            PgflowError: the turn of a loop has been trimmed; a child was dispatched before it whose output is not
                recorded.
            ValueError: `before` is no location, or the queue no name.

        Example:
            handle = await client.fork(failed.id, before="{2, 5, 1}")
        """
        if queue is not None:
            check_queue(queue)
        query = operating.fork(self._core.schema, uuid_of(id), location_of(before), uuid7(), queue)
        return WorkflowHandle(self._core, await self._operate(query), None)

    async def _operate(self, query: Query[T], connection: Any = None) -> T:
        return await self._core.execute(query if self._core.connections.hints else operating.quietly(query), connection)
