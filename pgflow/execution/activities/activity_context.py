"""`ActivityContext`: what an activity's code can learn about its attempt, and what it leaves with its workflow."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from pgflow import forking
from pgflow.codec import PAYLOAD_LIMIT, decode, encode
from pgflow.definitions.functions import AttemptContext
from pgflow.definitions.tags import tags_text
from pgflow.errors import ActivityCancelled, PgflowError, SerializationError
from pgflow.execution.activities.heartbeats import Heartbeats
from pgflow.execution.activities.resources import NO_RESOURCES, Resources
from pgflow.execution.activities.state import Changes, changes_between
from pgflow.history.location import display
from pgflow.history.rewinds import numbered
from pgflow.observe.log_records import ContextLogger, Fields, logger_of

T = TypeVar("T")

_heartbeats_lock = threading.Lock()
"""Held while the heartbeats of an attempt are connected or disconnected: its code may tell them from
several threads.
"""


def _begin_anew() -> None:
    """In a forked child: a thread that held it is the parent's."""
    global _heartbeats_lock
    _heartbeats_lock = threading.Lock()


forking.at_fork(_begin_anew)


class ActivityContext(AttemptContext):
    """One attempt of an activity.

    Attributes:
        workflow_id: the workflow that called it.
        name: the activity's name.
        attempt: which attempt this is, from 1: one more than those that have ended.
    """

    __slots__ = (
        "_before",
        "_connection",
        "_deliver",
        "_heartbeats",
        "_limit",
        "_location",
        "_logs_as",
        "_loop",
        "_over",
        "_resources",
        "_rewinds",
        "_state",
        "_state_given",
        "_tags",
        "attempt",
        "heard_at",
        "name",
        "last_details",
        "workflow_id",
    )

    def __init__(
        self,
        location: str,
        workflow_id: uuid.UUID,
        name: str,
        attempt: int,
        state: str | None = None,
        last_details: str | None = None,
        limit: int = PAYLOAD_LIMIT,
        logs_as: tuple[Callable[..., Any] | None, str] = (None, ""),
        rewinds: Sequence[str] = (),
    ) -> None:
        self._location = location
        self._rewinds = rewinds
        self._logs_as = logs_as
        """The activity's function, and the name of the workflow: see `logger`."""
        self.workflow_id = workflow_id
        self.name = name
        self.attempt = attempt
        self.last_details = last_details
        """The details of the last heartbeat, as JSON; private."""
        self.heard_at = 0.0
        """When the last heartbeat was, by `time.monotonic()`; private."""
        self._before = last_details
        self._limit = limit
        self._state_given = state
        self._state: dict[str, Any] | None = None
        self._tags: dict[str, Any] = {}
        self._connection: Any = None
        self._deliver: Callable[[str], None] | None = None
        self._heartbeats: Heartbeats | None = None
        self._over: str | None = None
        self._resources = NO_RESOURCES

    @property
    def logger(self) -> ContextLogger:
        """A logger whose records say which attempt of which step this is: that of the module that defines the activity.

        Example:
            ctx.logger.info("charging %s", card)
        """
        fn, workflow = self._logs_as
        fields: Fields = {
            "workflow_id": str(self.workflow_id),
            "workflow": workflow,
            "location": display(self._location),
            "activity": self.name,
            "attempt": self.attempt,
        }
        return ContextLogger(logger_of(fn), fields)

    @property
    def id(self) -> uuid.UUID:
        """The activity's id, the same for all its attempts; another one once the workflow was rewound before it."""
        return uuid.uuid5(self.workflow_id, numbered(self._location, self._rewinds))

    @property
    def idempotency_key(self) -> str:
        """A text that is the same for all attempts of this step, and for no other step.

        Hand it to services that refuse to do the same thing twice. Once the workflow was rewound before the step it is
        another one: a provider must not answer with the charge that has been refunded.
        """
        return str(self.id)

    @property
    def state(self) -> dict[str, Any]:
        """What activities keep with this workflow: a dict to read and to change, of values that JSON can hold.

        What this attempt sets and deletes is merged into the workflow's state, key by key, in the same transaction as
        its result; of an attempt that fails, nothing is. Activities that run at the same time each work on a copy: of
        two that set one key, the result that comes last decides.

        Example:
            ctx.state["pages"] = ctx.state.get("pages", 0) + 1
        """
        if self._state is None:
            found = {} if self._state_given is None else decode(self._state_given, what="the workflow's state")
            if not isinstance(found, dict):
                raise SerializationError(
                    f"the workflow's state is {found!r:.200}; expected a JSON object. Was it written by SQL?"
                )
            self._state = found
        return self._state

    def update_tags(self, tags: Mapping[str, Any]) -> None:
        """Set some of the workflow's tags; it is found and signalled by them once this activity's result is committed.

        `ctx.tags` of the workflow stays what was given at its dispatch, and so does the key by which it is unique.

        Args:
            tags: names, and texts, numbers, booleans or None; tags not named keep their values.

        Raises:
            ValueError: they are not flat.
            SerializationError: a value cannot be stored, or they are too large.

        Example:
            ctx.update_tags({"stage": "shipped"})
        """
        tags_text(tags)
        self._tags.update(tags)

    @property
    def heartbeat_details(self) -> Any:
        """The details that an earlier attempt passed to `heartbeat` last, decoded from JSON; None if none did.

        After a crash, and after a failure, an activity can go on from there.
        """
        return None if self._before is None else decode(self._before, what=f'heartbeat of activity "{self.name}"')

    def heartbeat(self, details: Any = None) -> None:
        """Report how far this attempt has come; call it as often as is convenient, from any thread.

        The last details are written at most once a second, into the step's pending row (column `output`), for people
        and for the next attempt. The activity's timeout stays what it is; its `heartbeat_timeout` counts anew.

        Args:
            details: a value that JSON can hold; None: only find out whether the attempt is still wanted.

        Raises:
            ActivityCancelled: nobody waits for this attempt any more (it was cancelled, its timeout has passed, the
                worker has lost the workflow): clean up and return. There is no other way to stop a thread.
            SerializationError: the details cannot be stored.

        Example:
            for number, line in enumerate(lines[ctx.heartbeat_details or 0:]):
                load(line)
                ctx.heartbeat(number + 1)
        """
        if self._over is not None:
            raise ActivityCancelled(
                f'activity "{self.name}": nobody waits for this attempt any more, because {self._over}. What it '
                "returns is dropped: clean up and return."
            )
        self.heard_at = time.monotonic()
        if details is None:
            return
        self.last_details = encode(details, what=f'heartbeat of activity "{self.name}"', limit=self._limit)
        with _heartbeats_lock:
            if self._deliver is None:
                return  # nothing is connected, or the attempt has ended
            if self._heartbeats is None:
                self._heartbeats = Heartbeats(self._loop, self._deliver)
        self._heartbeats.report(self.last_details)

    @property
    def connection(self) -> Any:
        """The psycopg connection whose transaction also commits the result; async in an `async def`, sync in a `def`.

        Raises:
            PgflowError: the activity is not transactional.

        Example:
            await ctx.connection.execute(TAKE_FROM_STOCK, [item])
        """
        if self._connection is None:
            raise PgflowError(
                f'activity "{self.name}" has no connection. Expected: @pgflow.activity(transactional=True), run by '
                "a worker, and a use before the activity has returned. In a unit test give a function in its place; "
                "otherwise open a connection of your own."
            )
        return self._connection

    def resource(self, kind: type[T]) -> T:
        """The object of a type that all activities of this process share: a client, a pool, a gateway.

        It comes from the worker's `lifespan`, or from its `objects`; in `pgflow.testing.run`, from `resources`.

        Args:
            kind: its type, or one that it is derived from, if no other is.

        Raises:
            PgflowError: there is none, or there are several; the message names what there is.
            TypeError: `kind` is no class.

        Example:
            answer = await ctx.resource(httpx.AsyncClient).post(url, json=order)
        """
        return self._resources.get(kind, f'activity "{self.name}"')

    # What the engine does with it

    def provide(self, resources: Resources) -> None:
        """Give it what activities of this process share."""
        self._resources = resources

    def changes(self) -> Changes | None:
        """What this attempt leaves with its workflow, if anything.

        Raises:
            SerializationError: a value cannot be stored.
        """
        if self._state is None:
            return Changes({}, frozenset(), self._tags) if self._tags else None
        return changes_between(self._state_given, self._state, self._tags)

    def attach(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[str], None], resources: Resources = NO_RESOURCES
    ) -> None:
        """Connect it with the receiver of its heartbeats, on that loop, and with what activities share."""
        self._loop = loop
        self._resources = resources
        self._deliver = deliver

    def connect(self, connection: Any) -> None:
        """Connect it with its transaction."""
        self._connection = connection

    def end(self, why: str) -> None:
        """Nobody waits for this attempt any more. On the loop."""
        if self._over is None:
            self._over = why
        self._connection = None
        with _heartbeats_lock:
            self._deliver = None
        if self._heartbeats is not None:
            self._heartbeats.close()
