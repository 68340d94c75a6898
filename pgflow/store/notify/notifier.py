"""Hints: notifications that shorten a wait and never carry meaning. Every listener polls as well.

`Notifier` sends them after commits, gathered, on a connection of its own that does not wait for the disk: a
notification takes a database-wide lock at its commit, so it must never be part of a transaction of history. Messages
leave the same way. `Listener` receives them, and reports when it was away so that its owner looks for itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from uuid import UUID

import psycopg
from psycopg import sql

from pgflow.model.rows import Message
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.channels import (
    chore_channel,
    done_channel,
    mail_channel,
    parse_deadline,
    parse_done,
    parse_mail,
    parse_wake,
    wake_channel,
)
from pgflow.store.database.connections import Database, Line, still_open
from pgflow.store.database.pipeline import Statement, flush
from pgflow.store.database.pooler import AsyncConnection, is_shared
from pgflow.store.database.silence import ALIVE, ANSWER, ASK_EVERY
from pgflow.store.notify.messages import TRIM_AT_ONCE, trim
from pgflow.store.notify.outbox import Outbox
from pgflow.store.notify.receiving import receive
from pgflow.store.queries.dispatching import done, may_notify, wake
from pgflow.store.queries.signalling import mail

_log = logging.getLogger("pgflow.store")

GATHER = 0.002
"""The least seconds between two sendings; hints are gathered in between. The first one after a pause leaves at once."""

MOST_IDS = 20_000
"""The most ended workflows that wait to be announced; the others are found by polling."""

TRIM_EVERY = 60.0
"""Seconds between two removals of old messages by one worker."""

_UNAVAILABLE = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.NotSupportedError,
)
"""The errors by which a server refuses that has no notifications, or none for this role."""


class Listener:
    """Receives hints on its own connection, and opens another one when that breaks.

    Example:
        listener = Listener(database, wake=look, reconnected=look_everywhere)
        listener.start()
        await listener.close()
    """

    def __init__(
        self,
        database: Database,
        *,
        wake: Callable[[str, UUID | None], None] | None = None,
        done: Callable[[list[UUID]], None] | None = None,
        mail: Callable[[int], None] | None = None,
        deadline: Callable[[float], None] | None = None,
        chore: Callable[[], None] | None = None,
        reconnected: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            database: Where to listen.
            wake: Called with the name of a queue that has work, and the id of the new workflow if it is a single one.
            done: Called with the ids of workflows that have ended.
            mail: Called when something was sent to a workflow, with the worker that has it or had it last, or 0.
            deadline: Called when a deadline was set, with the seconds until then.
            chore: Called when something is to be done that one worker does for all.
            reconnected: Called whenever it begins to listen, the first time as well: what was sent before is missed.
        """
        self._database = database
        self._takers: dict[str, Callable[[str], None]] = {}
        """What takes the payloads, by channel."""
        if wake is not None:
            self._takers[wake_channel(database.schema)] = lambda payload: wake(*parse_wake(payload))
        if done is not None:
            self._takers[done_channel(database.schema)] = lambda payload: done(parse_done(payload))
        if mail is not None:
            self._takers[mail_channel(database.schema)] = partial(_take_mail, mail, deadline)
        if chore is not None:
            self._takers[chore_channel(database.schema)] = lambda payload: chore()
        self._reconnected = reconnected
        self._task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        """Set while hints arrive."""
        self.decided = asyncio.Event()
        """Set once hints have begun to arrive, or it is known that none will."""

    def start(self) -> None:
        """Begin to listen; the callbacks are called on this event loop."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="pgflow listener")

    async def close(self) -> None:
        """Stop listening."""
        self.decided.set()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with await self._database.connect("listener") as connection:
                    if is_shared(connection):
                        _log.info("no notifications through a pooler, polling alone finds work")
                        self.decided.set()
                        return
                    await self._listen(connection)
                    backoff.reset()
                    self.listening.set()
                    self.decided.set()
                    if self._reconnected is not None:
                        self._reconnected()
                    await self._receive(connection)
            except _UNAVAILABLE as error:
                _log.info("no notifications here, polling alone finds work: %s", error)
                self.decided.set()
                return
            except psycopg.Error as error:
                _log.warning("the listener's connection broke and is opened again: %s", error)
            finally:
                self.listening.clear()
            await asyncio.sleep(backoff.spread_pause())

    async def _listen(self, connection: AsyncConnection) -> None:
        for channel in self._takers:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    async def _receive(self, connection: AsyncConnection) -> None:
        connection.add_notify_handler(lambda notify: self._take(notify.channel, notify.payload))  # comes with an answer
        while True:
            await receive(connection, self._take, ASK_EVERY)
            await flush(connection, ALIVE, until=time.monotonic() + ANSWER)

    def _take(self, channel: str, payload: str) -> None:
        if (take := self._takers.get(channel)) is not None:
            take(payload)


def _take_mail(mail: Callable[[int], None], deadline: Callable[[float], None] | None, payload: str) -> None:
    seconds = parse_deadline(payload)
    if seconds is None:
        mail(parse_mail(payload))
    elif deadline is not None:
        deadline(seconds)


class Notifier:
    """Sends hints and messages after commits, gathered.

    Args:
        database: Where to.
        trims: Whether it removes old messages as well.

    Example:
        notifier = Notifier(database)
        notifier.start()
        notifier.done(workflow_id)
        await notifier.close()
    """

    def __init__(self, database: Database, *, trims: bool = False) -> None:
        self._database = database
        self._line = Line(database, "notifier")
        self._line.on_open = self._prepare
        self._may_notify = True
        self._may_notify_known = False
        self._queues: set[str] = set()
        self._ids: dict[UUID | str, None] = {}
        self._workers: set[int] = set()
        self.outbox = Outbox(database.schema)
        """The messages that wait to be sent."""
        self._trim_at = time.monotonic() + TRIM_EVERY * random.random() if trims else None
        self._wanted = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        """Statements sent so far."""

    def start(self) -> None:
        """Begin to send."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="pgflow notifier")

    def wake(self, queue: str) -> None:
        """A queue has work."""
        self._queues.add(queue)
        self._wanted.set()

    def mail(self, worker: int) -> None:
        """Something was sent to a workflow that this worker has or had last; 0: any."""
        self._workers.add(worker)
        self._wanted.set()

    def done(self, *ids: UUID | str) -> None:
        """Workflows have ended."""
        if len(self._ids) < MOST_IDS:
            self._ids.update(dict.fromkeys(ids))
            self._wanted.set()

    def right_behind(self, ids: Sequence[UUID | str]) -> list[Statement]:
        """The hint that workflows have ended, to be sent in one flush with the statement that ends them.

        Nothing until it is known that hints can be sent here: until then `done` gathers them.
        """
        if not self._may_notify_known or not ids:
            return []
        query = done(self._database.schema, ids, quick=True)
        self.sent += 1
        return [(query.sql, query.params)]

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages."""
        self.outbox.add(messages)
        self._wanted.set()

    async def close(self, timeout: float = 1.0) -> None:
        """Send what is left, within `timeout` seconds, and stop."""
        task, self._task = self._task, None
        if task is not None:
            self._closing = True
            self._wanted.set()
            with suppress(TimeoutError):
                await asyncio.wait_for(task, timeout)
        await self._line.drop()

    async def _run(self) -> None:
        next_at = 0.0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._until_trim()):
                    await self._wanted.wait()
            pause = next_at - time.monotonic()
            if pause > 0 and not self._closing:
                await asyncio.sleep(pause)
            next_at = time.monotonic() + GATHER
            self._wanted.clear()
            try:
                await self._send()
                if self._until_trim() == 0 and not self._closing:
                    await self._trim()
            except psycopg.Error as error:
                _log.warning("hints were lost, polling finds the work that they announced: %s", error)
                await self._line.drop()
            if self.outbox:
                self._wanted.set()
            if self._closing and not self._wanted.is_set():
                return

    async def _send(self) -> None:
        queues, self._queues = self._queues, set()
        ids, self._ids = self._ids, {}
        workers, self._workers = self._workers, set()
        schema = self._database.schema
        queries = []
        if queues:
            queries.append(wake(schema, queues))
        if workers:
            queries.append(mail(schema, workers))
        if ids:
            queries.append(done(schema, ids))
        connection = await self._line.get()
        if not still_open(connection):  # broken while idle: better replaced now than in the middle of a message
            connection = await self._line.get()
        if self._may_notify:
            for query in queries:
                await connection.execute(query.sql, query.params, prepare=True)
                self.sent += 1
        await self.outbox.send(connection, tell=self._may_notify)

    async def _trim(self) -> None:
        """Remove some of the old messages; if there are more, the next removal is soon."""
        self._trim_at = time.monotonic() + TRIM_EVERY * random.uniform(0.5, 1.5)
        query = trim(self._database.schema)
        connection = await self._line.get()
        cursor = await connection.execute(query.sql, query.params, prepare=True)
        if query.read(await cursor.fetchall()) >= TRIM_AT_ONCE:
            self._trim_at = time.monotonic()

    def _until_trim(self) -> float | None:
        return None if self._trim_at is None else max(0.0, self._trim_at - time.monotonic())

    async def _prepare(self, connection: AsyncConnection) -> None:
        if not is_shared(connection):
            await connection.execute("SET synchronous_commit = off")
        query = may_notify(self._database.schema)
        try:
            cursor = await connection.execute(query.sql, query.params)
            self._may_notify = query.read(await cursor.fetchall())
        except _UNAVAILABLE:
            self._may_notify = False
        self._may_notify_known = self._may_notify
        if not self._may_notify:
            _log.info("no notifications here, polling alone finds work")
