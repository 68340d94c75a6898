"""What the parts of a client share: its schema, its connections, and what waits and listens on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import psycopg

from pgflow.client.filters import limit_of, seconds_of
from pgflow.definitions.calls import output_of, sent_of
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.options import actor_of, reason_of, uuid_of
from pgflow.errors import WorkflowNotFound
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent
from pgflow.model.explanation import SHOWN, Explanation, explanation
from pgflow.model.info import HistoryEvent, WorkflowInfo
from pgflow.store.client.caller import execute_on, expect_on, mail_on, wake_on
from pgflow.store.client.endings_by_task import TaskEndings
from pgflow.store.client.pool import Connections
from pgflow.store.client.subscriptions import Subscriptions
from pgflow.store.database.channels import is_near
from pgflow.store.database.connections import Database
from pgflow.store.database.query import Query
from pgflow.store.queries import dispatching, explaining, inspection, operating, signalling

T = TypeVar("T")

HISTORY_LIMIT = 1_000_000
"""The most rows of history that are read at once."""


class Core:
    """What a client's methods, and the handles that they give, are made of.

    Args:
        dsn: The database.
        schema: The schema of pgflow's tables.
        connections: How many connections it may open.
        payload_limit: The largest input, in bytes of JSON.
        hints: Whether to notify workers.
        call_timeout: Seconds (or a timedelta) that a call waits for the database; None: any.
        actor: Who operates by it; None: the database's role.

    Raises:
        ValueError: A number below 1, a duration that is none, an actor without a name.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        connections: int,
        payload_limit: int,
        hints: bool,
        call_timeout: timedelta | float | None,
        actor: str | None,
    ) -> None:
        self.schema = schema
        self.actor = actor_of(actor)
        self.payload_limit = payload_limit
        limit = limit_of(connections, payload_limit, call_timeout)
        database = Database(dsn, schema, application="pgflow client", longest_silence=limit)
        self.connections = Connections(database, connections, limit, hints=bool(hints))
        self.endings = TaskEndings(database, self.connections)
        self.subscriptions = Subscriptions(database, self.connections)

    async def close(self) -> None:
        """Close all connections; calls that wait raise an error."""
        await self.endings.close()
        await self.subscriptions.close()
        await self.connections.close()

    def audit_note(self, reason: str | None) -> operating.AuditNote:
        """What the table `audit` records of an operation.

        Raises:
            ValueError: The reason is no text, or a long one.
        """
        return operating.AuditNote(self.actor, reason_of(reason))

    async def read(self, query: Query[T]) -> T:
        """Send a statement that reads workflows; payloads that the role may not see are null.

        Raises:
            psycopg.Error: It failed.
        """
        return await self.connections.execute(self.connections.rights.visible(query))

    async def execute(self, query: Query[T], connection: Any = None) -> T:
        """Send a statement, over a connection of the client's or within a caller's transaction.

        Raises:
            PgflowError: The schema's functions refuse.
            psycopg.Error: It failed.
        """
        try:
            if connection is not None:
                return await execute_on(connection, query)
            return await self.connections.execute(query)
        except psycopg.Error as error:
            refused = operating.refusal(error)
            if refused is None:
                raise
            raise refused from None

    async def operate(self, query: Query[T], connection: Any = None) -> T:
        """Send a statement that operates workflows, without a notification if the client sends no hints.

        Raises:
            PgflowError: The schema's functions refuse.
            psycopg.Error: It failed.
        """
        return await self.execute(query if self.connections.hints else operating.quietly(query), connection)

    def starting(
        self, requests: Sequence[Dispatch], connection: Any, *, fresh: bool = False
    ) -> Query[list[Dispatched]]:
        """The statement that starts workflows.

        Args:
            requests: What to start.
            connection: One of the caller's, on which it will be executed; None: one of the client's.
            fresh: Nobody can have used their ids, they differ in id and input alone, and are not unique.
        """
        if not self.connections.rights.writes:
            quiet = connection is None or not self.connections.hints
            return dispatching.dispatch_called(self.schema, requests, quiet)
        return (dispatching.dispatch_fresh if fresh else dispatching.dispatch)(self.schema, requests)

    async def dispatch(
        self,
        query: Query[list[Dispatched]],
        connection: Any,
        wakes: str | None,
        id: UUID | None = None,
        timeout: float | None = None,
    ) -> list[Dispatched]:
        """Dispatch; repeat it if another client started the same workflow at the same moment and cannot be seen yet.

        Args:
            query: The statement.
            connection: One of the caller's, whose transaction this joins; None: one of the client's.
            wakes: The queue that has work then; None: it has none yet.
            id: The work, if it is a single workflow.
            timeout: Seconds until its deadline.
        """
        for _ in range(10):
            if connection is None:
                started = await self.connections.start(query, wakes, id, timeout)
            else:
                started = await execute_on(connection, query)
            if not any(one.unseen for one in started):
                break
        hints = self.connections.hints and self.connections.rights.writes  # else the function sends them
        if connection is not None and hints and any(one.created for one in started):
            if wakes is not None:
                await wake_on(connection, self.schema, wakes)
            if is_near(timeout):
                await expect_on(connection, self.schema, timeout)
        return started

    async def get(self, id: UUID | str) -> WorkflowInfo:
        """A workflow as it stands now.

        Raises:
            WorkflowNotFound: There is none.
        """
        found = await self.read(inspection.get(self.schema, [uuid_of(id)]))
        if not found:
            raise self.not_found(id)
        return found[0]

    async def explain(self, id: UUID | str) -> Explanation:
        """Why a workflow is where it is.

        Raises:
            WorkflowNotFound: There is none.
        """
        workflow_id = uuid_of(id)
        pending = await self.read(inspection.pending(self.schema, workflow_id, SHOWN + 1))
        facts = await self.read(explaining.facts(self.schema, workflow_id, pending))
        if facts is None:
            raise self.not_found(id)
        return explanation(workflow_id, facts, pending)

    async def history(self, id: UUID | str, forgotten: bool) -> list[HistoryEvent]:
        """A workflow's history in order.

        Raises:
            WorkflowNotFound: There is none.
        """
        found = await self.read(inspection.history(self.schema, uuid_of(id), forgotten, HISTORY_LIMIT))
        if not found:
            await self.get(id)
        return found

    async def signal(self, sending: Sending, missing_ok: bool, connection: Any = None) -> UUID | None:
        """Send a signal; returns its id, or None if nobody receives it and `missing_ok` allows that.

        Raises:
            WorkflowNotFound: Nobody receives it.
            ValueError: The id belongs to another signal.
        """
        if connection is None:
            sent = await self.connections.send(sending)
        else:
            (sent,) = await execute_on(connection, self._sending(sending))
        accepted = sent_of(sending, sent, missing_ok)
        hints = self.connections.hints and self.connections.rights.writes
        if accepted is not None and connection is not None and hints:
            await mail_on(connection, self.schema, sent.worker)
        return accepted

    def _sending(self, sending: Sending) -> Query[list[Sent]]:
        if self.connections.rights.writes:
            return signalling.send(self.schema, [sending])
        return signalling.send_called(self.schema, [sending], quiet=not self.connections.hints)

    async def output(self, id: UUID, timeout: timedelta | float | None, workflow: Workflow[Any, Any] | None) -> Any:
        """What a workflow returns, converted if its definition is given; waits until it has ended.

        Raises:
            WorkflowNotFound: There is none.
            WorkflowFailed: It failed.
            WorkflowCancelled: It was cancelled.
            TimeoutError: It has not ended in time.
        """
        seconds = None if timeout is None else seconds_of(timeout)
        standing = await self.endings.standing(id, seconds)
        if standing is None:
            raise self.not_found(id)
        result = output_of(standing, workflow)
        if result is None:
            raise TimeoutError(f'workflow "{standing.name}" {id} has not ended in time; it is {standing.status}')
        return result[0]

    def not_found(self, id: UUID | str) -> WorkflowNotFound:
        """The error that says that there is no such workflow."""
        return WorkflowNotFound(f'there is no workflow {id} in schema "{self.schema}"')


class HasCore:
    """A client, and each part of it."""

    _core: Core


def core_of(client: HasCore) -> Core:
    """What a client is built on, for the handles that it gives."""
    return client._core
