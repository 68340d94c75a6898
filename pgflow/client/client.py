"""The client: start workflows, wait for their output, look at them and their history."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload
from uuid import UUID

import psycopg

from pgflow.client.bulk import BulkOperations
from pgflow.client.core import Core
from pgflow.client.dead_letters import DeadLetters
from pgflow.client.deployments import Deployments
from pgflow.client.examination import Examination
from pgflow.client.explain import Explaining
from pgflow.client.filters import inputs_of, parts_of
from pgflow.client.handle import WorkflowHandle
from pgflow.client.lists import Lists
from pgflow.client.operations import Operations
from pgflow.client.pruning import Pruning
from pgflow.client.queues import Queues
from pgflow.client.retention import Retains
from pgflow.client.subscription import Subscription
from pgflow.codec import PAYLOAD_LIMIT
from pgflow.definitions.calls import Options, input_of, sending_of, workflow_name
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.options import MANY, ONE, UNSET, given_options, uuid_of
from pgflow.definitions.packets import message_name
from pgflow.definitions.tags import tags_text
from pgflow.model.info import HistoryEvent, WorkflowInfo
from pgflow.store.queries import dispatching, histories
from pgflow.uuid7 import uuid7, uuid7s

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

AT_ONCE = 2_000
"""The most workflows that one statement of `dispatch_many` starts."""

BYTES_AT_ONCE = 8 << 20
"""The most characters of input in one statement of `dispatch_many`, unless a single workflow has more."""

HISTORY_LIMIT = 1_000_000
"""The most rows of history that are read at once."""


class Client(Lists, Operations, BulkOperations, Pruning, Retains, DeadLetters, Deployments, Explaining, Examination):
    """Talks to the database that the workers work on.

    Args:
        dsn: the database.
        schema: the schema of pgflow's tables.
        connections: the most connections that it may open.
        payload_limit: the largest input, in bytes of JSON.
        hints: whether to notify workers; without hints they poll, and a caller's transaction can be prepared for a
            two-phase commit.
        call_timeout: seconds (or a timedelta) that a call waits for the database, with all its tries; None: no limit
            but the database's own.
        actor: who operates workflows with this client, for the table `audit`; None: the database's role.

    Example:
        async with pgflow.Client(dsn) as client:
            handle = await client.dispatch(checkout, order)
            receipt = await handle.output()
    """

    def __init__(
        self,
        dsn: str,
        schema: str = "pgflow",
        *,
        connections: int = 4,
        payload_limit: int = PAYLOAD_LIMIT,
        hints: bool = True,
        call_timeout: timedelta | float | None = 30.0,
        actor: str | None = None,
    ) -> None:
        self._core = Core(dsn, schema, connections, payload_limit, hints, call_timeout, actor)

    @property
    def queues(self) -> Queues:
        """What waits in queues: `await client.queues.list()`."""
        return Queues(self._core)

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            SchemaOutdated: the database is not migrated, or its schema does not fit this code.
            psycopg.OperationalError: the database cannot be reached.
        """
        await self._core.connections.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        await self._core.close()

    @overload
    async def dispatch(
        self,
        workflow: Workflow[P, R],
        /,
        *args: Any,
        id: UUID | str | None = None,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        connection: Any = None,
        **kwargs: Any,
    ) -> WorkflowHandle[R]: ...
    @overload
    async def dispatch(
        self,
        workflow: str,
        /,
        *args: Any,
        id: UUID | str | None = None,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        connection: Any = None,
        **kwargs: Any,
    ) -> WorkflowHandle[Any]: ...
    async def dispatch(
        self,
        workflow: Workflow[Any, Any] | str,
        /,
        *args: Any,
        id: UUID | str | None = UNSET,
        tags: Mapping[str, Any] | None = UNSET,
        unique: bool = UNSET,
        run_at: datetime | None = UNSET,
        priority: int = UNSET,
        queue: str = UNSET,
        connection: Any = UNSET,
        **kwargs: Any,
    ) -> WorkflowHandle[Any]:
        """Start a workflow.

        Args:
            workflow: the workflow, or its name (then arguments are given by name).
            id: an id of the caller's; if a workflow of the same name was started with it before, nothing starts and
                that one's handle is returned.
            tags: a flat object by which the workflow can be found.
            unique: whether there may be only one live workflow, of those dispatched with this option, for this name and
                exactly these tags; if there is one, its handle is returned.
            run_at: not before this moment (with a time zone).
            priority: higher goes first; 0 if not given.
            queue: the queue that workers serve; "default" if not given.
            connection: a connection or session of psycopg's or SQLAlchemy's whose transaction this joins.

        Raises:
            TypeError: the arguments do not fit the workflow's signature, or an option may be meant for its parameter of
                that name.
            SerializationError: an argument cannot be stored, or is too large.
            ValueError: an option out of its range, or an id that belongs to a workflow of another name.

        Example:
            handle = await client.dispatch(checkout, order, id=order.id, tags={"customer": 7})
        """
        given = given_options(
            id=id, tags=tags, unique=unique, run_at=run_at, priority=priority, queue=queue, connection=connection
        )
        if isinstance(workflow, Workflow):
            given = {**workflow.start_options(given, ONE, len(args), "client.dispatch")}
        return await self._start(workflow, args, kwargs, **given)

    @overload
    async def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]: ...
    @overload
    async def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]: ...
    async def start(self, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any) -> WorkflowHandle[Any]:
        """Start a workflow. All arguments are the workflow's, whatever its parameters are called; type checkers compare
        them.

        Args:
            workflow: the workflow, with options if there are any: `checkout.options(queue="slow", tags={...})`; or its
                name.

        Raises:
            TypeError: the arguments do not fit the workflow's signature.
            SerializationError: an argument cannot be stored, or is too large.
            ValueError: an id that belongs to a workflow of another name.

        Example:
            handle = await client.start(checkout.options(id=order.id, tags={"customer": 7}), order)
        """
        given = {**workflow.start_options({}, ONE, 0, "client.start")} if isinstance(workflow, Workflow) else {}
        return await self._start(workflow, args, kwargs, **given)

    async def _start(
        self,
        workflow: Workflow[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        id: UUID | str | None = None,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        timeout: timedelta | float | None = None,
        connection: Any = None,
    ) -> WorkflowHandle[Any]:
        options = Options(tags, unique, run_at, priority, queue, timeout)
        name, text = input_of(workflow, args, kwargs, self._core.payload_limit)
        request = options.dispatch(uuid7() if id is None else uuid_of(id), name, text)
        # An error would end a caller's transaction: there, and for ids that may be known, it is looked first.
        fresh = id is None and not unique and connection is None and options.timeout is None
        query = self._core.starting([request], connection, fresh=fresh)
        try:
            (started,) = await self._core.dispatch(
                query, connection, queue if run_at is None else None, request.id, options.timeout
            )
        except psycopg.Error as error:
            if (refused := dispatching.held_up(error, request)) is None:
                raise
            raise refused from error
        checked = options.check(request, started)
        return WorkflowHandle(self, checked, workflow if isinstance(workflow, Workflow) else None)

    @overload
    async def dispatch_many(
        self,
        workflow: Workflow[P, R],
        arguments: Iterable[Mapping[str, Any]],
        *,
        tags: Mapping[str, Any] | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        connection: Any = None,
    ) -> builtins.list[WorkflowHandle[R]]: ...
    @overload
    async def dispatch_many(
        self,
        workflow: str,
        arguments: Iterable[Mapping[str, Any]],
        *,
        tags: Mapping[str, Any] | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        connection: Any = None,
    ) -> builtins.list[WorkflowHandle[Any]]: ...
    async def dispatch_many(
        self,
        workflow: Workflow[Any, Any] | str,
        arguments: Iterable[Mapping[str, Any]],
        *,
        tags: Mapping[str, Any] | None = UNSET,
        run_at: datetime | None = UNSET,
        priority: int = UNSET,
        queue: str = UNSET,
        connection: Any = UNSET,
    ) -> builtins.list[WorkflowHandle[Any]]:
        """Start many workflows in a few round trips.

        Args:
            workflow: the workflow, or its name.
            arguments: one mapping of arguments by name for each.
            tags, run_at, priority, queue, connection: as for `dispatch`, for all of them.

        Returns:
            Handles in the order of `arguments`.

        Raises:
            TypeError, SerializationError, ValueError: as `dispatch`; then none of them was started.
            psycopg.Error: the database failed; some may have been started, unless `connection` joins them in one
                transaction.

        Example:
            handles = await client.dispatch_many(checkout, [{"order": order} for order in orders])
        """
        given = given_options(tags=tags, run_at=run_at, priority=priority, queue=queue, connection=connection)
        if isinstance(workflow, Workflow):
            given = {**workflow.with_chosen(given, MANY, "client.dispatch_many")}
        return await self._start_many(workflow, arguments, **given)

    async def _start_many(
        self,
        workflow: Workflow[Any, Any] | str,
        arguments: Iterable[Mapping[str, Any]],
        *,
        tags: Mapping[str, Any] | None = None,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        timeout: timedelta | float | None = None,
        connection: Any = None,
    ) -> builtins.list[WorkflowHandle[Any]]:
        options = Options(tags, False, run_at, priority, queue, timeout)
        name, inputs = inputs_of(workflow, arguments, self._core.payload_limit)
        ids = uuid7s(len(inputs))
        requests = [options.dispatch(id, name, text) for id, text in zip(ids, inputs, strict=True)]
        definition = workflow if isinstance(workflow, Workflow) else None
        handles = []
        fresh = connection is None and options.timeout is None
        for part in parts_of(requests, AT_ONCE, BYTES_AT_ONCE):
            query = self._core.starting(part, connection, fresh=fresh)
            answer = await self._core.dispatch(
                query, connection, queue if run_at is None else None, timeout=options.timeout
            )
            for request, started in zip(part, answer, strict=True):
                handles.append(WorkflowHandle(self, options.check(request, started), definition))
        return handles

    async def signal(
        self,
        body: Any,
        *,
        to: UUID | str | None = None,
        workflow: Workflow[Any, Any] | str | None = None,
        tags: Mapping[str, Any] | None = None,
        missing_ok: bool = False,
        id: UUID | str | None = None,
        connection: Any = None,
    ) -> UUID | None:
        """Send a signal to a workflow; its `listen` takes it once.

        Args:
            body: an instance of a class declared by `@pgflow.signal`.
            to: the receiver's id; or else:
            workflow, tags: the oldest live workflow of this name whose tags contain these (else a failed one) receives
                it.
            missing_ok: whether None is returned instead of an error when nobody receives it.
            id: an id of the caller's: while the signal is retained (see `signal_keep`) it is sent once, to the receiver
                that was found first.
            connection: a connection or session of psycopg's or SQLAlchemy's whose transaction this joins.

        Returns:
            The signal's id.

        Raises:
            WorkflowNotFound: nothing matches, or it is completed or cancelled.
            TypeError: the body is no signal, or of `to` and `workflow` neither or both are given.
            ValueError: the id is none, or belongs to another signal: of another type, or to another workflow.
            SerializationError: the body cannot be stored, or is too large.

        Example:
            await client.signal(Approved(by="eva"), to=handle.id)
        """
        sending = sending_of(uuid7() if id is None else uuid_of(id), body, to, workflow, tags, self._core.payload_limit)
        return await self._core.signal(sending, missing_ok, connection)

    def subscribe(
        self,
        message: type[T],
        tags: Mapping[str, Any] | None = None,
        *,
        last: bool = False,
        buffer: int = 1_000,
    ) -> Subscription[T]:
        """The messages of a type that workflows publish from now on. They may be lost.

        Args:
            message: a class declared by `@pgflow.message`.
            tags: only messages whose tags contain these.
            last: begin with the last one that was published before, if it is not older than ten minutes.
            buffer: the most messages that wait to be read; when there are more, the oldest is dropped.

        Raises:
            TypeError: the class is not declared as a message.
            ValueError: tags that are not flat, a buffer that holds nothing.

        Example:
            async for progress in client.subscribe(Progress, tags={"customer": 42}):
                print(progress.done)
        """
        name = message_name(message, "subscribe")
        if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
            raise ValueError(f"buffer={buffer!r}: expected a whole number, at least 1")
        inbox = self._core.subscriptions.inbox(name, tags_text(tags), buffer, bool(last))
        return Subscription(self._core.subscriptions, inbox, message)

    async def output(self, id: UUID | str, timeout: timedelta | float | None = None) -> Any:
        """The output of a workflow, as JSON values; waits until it has ended. A handle's `output()` converts it.

        Raises:
            WorkflowNotFound: there is no such workflow.
            WorkflowFailed: it failed.
            WorkflowCancelled: it was cancelled.
            TimeoutError: it has not ended in time.
        """
        return await self._core.output(uuid_of(id), timeout, None)

    async def get(self, id: UUID | str) -> WorkflowInfo:
        """A workflow as it stands now.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        return await self._core.get(id)

    def handle(self, workflow: Workflow[P, R] | str, id: UUID | str) -> WorkflowHandle[R]:
        """A handle of a workflow that was dispatched elsewhere. The database is not asked whether there is one.

        Args:
            workflow: its definition, by which its output is converted; with its name alone the output is not converted.

        Raises:
            ValueError: the id is none.
            TypeError: it is no workflow.

        Example:
            receipt = await client.handle(checkout, order.workflow_id).output()
        """
        workflow_name(workflow)
        return WorkflowHandle(self, uuid_of(id), workflow if isinstance(workflow, Workflow) else None)

    async def history(self, id: UUID | str, forgotten: bool = False) -> builtins.list[HistoryEvent]:
        """A workflow's history in order.

        Args:
            forgotten: whether to include the kept turns of loops that have left active history.

        Raises:
            WorkflowNotFound: there is no such workflow.
        """
        return await self._core.history(id, forgotten)

    async def export(self, id: UUID | str) -> str:
        """One JSON document of a workflow and its active history: what `pgflow.testing.replay` takes.

        Raises:
            WorkflowNotFound: there is no such workflow.

        Example:
            Path("tests/histories/checkout.json").write_text(await client.export(handle.id))
        """
        found = await self._core.connections.execute(histories.read(self._core.schema, uuid_of(id)))
        if not found:
            raise self._core.not_found(id)
        return found[0].to_json()
