"""Messages on their way out of a worker: a bounded queue, sent in parts after the commits that they belong to.

A message is sent at most once. A part is tried again only when the server says that it did nothing; when it is not
known whether it was sent, it is given up: messages may be lost, but no subscriber should get one twice.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import psycopg

from pgflow import faults
from pgflow.model.rows import Message
from pgflow.store.database.channels import Notice
from pgflow.store.database.encodings import escaped_json, noted
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.database.query import Query
from pgflow.store.database.retrying import is_passing
from pgflow.store.notify.messages import announce, store

T = TypeVar("T")

_log = logging.getLogger("pgflow.store")

MOST = 10_000
"""The most messages that wait."""

MOST_CHARACTERS = 32 << 20
"""The most characters of the bodies that wait."""

AT_ONCE = 500
"""The most messages that one statement sends."""

CHARACTERS_AT_ONCE = 1 << 20
"""The most characters of bodies in one statement, unless a single message has more."""

TRIES = 3
"""How often a part is tried whose attempts the server says did nothing."""


class Outbox:
    """The messages that wait to be sent.

    Example:
        outbox = Outbox("pgflow")
        outbox.add([message])
        await outbox.send(connection, tell=True)
    """

    def __init__(self, schema: str) -> None:
        self._schema = schema
        self._waiting: deque[Message] = deque()
        self._characters = 0
        self._failed = 0
        self.sent = 0
        """Messages that are on their way to subscribers."""
        self.lost = 0
        """Messages that were given up: there were too many, or the database failed."""

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, messages: Sequence[Message]) -> None:
        """Take messages; the oldest are given up when there are too many."""
        self._waiting.extend(messages)
        self._characters += sum(len(message.body) for message in messages)
        crowded_out = 0
        while len(self._waiting) > MOST or self._characters > MOST_CHARACTERS:
            self._take()
            crowded_out += 1
        if crowded_out:
            self._give_up(crowded_out, f"more than {MOST:,}, or {MOST_CHARACTERS:,} characters, wait to be sent")

    async def send(self, connection: AsyncConnection, *, tell: bool) -> None:
        """Send all that wait.

        Args:
            connection: Where; each part is stored, then announced, in transactions of their own.
            tell: Whether notifications can be sent here; if not, subscribers find the messages by looking.

        Raises:
            psycopg.Error: The database failed; the parts with which it did nothing wait for another try.
        """
        while self._waiting:
            part = self._part()
            await faults.reach("outbox.before_store")
            try:
                numbers = await _execute(connection, store(self._schema, part))
            except psycopg.Error as error:
                self._failed += 1
                if error.sqlstate is not None and is_passing(error) and self._failed < TRIES:
                    self._waiting.extendleft(reversed(part))
                    self._characters += sum(len(message.body) for message in part)
                else:
                    self._failed = 0
                    self._give_up(len(part), str(error))
                raise
            except BaseException:
                self.lost += len(part)  # the worker stops, and waits no longer
                raise
            self._failed = 0
            if tell:
                await faults.reach("outbox.before_announce")
                lacking = noted(connection)
                notices = [
                    Notice(
                        number,
                        message.name,
                        message.tags,
                        escaped_json(lacking, message.body),
                        message.workflow_id,
                        message.place or None,
                    )
                    for number, message in zip(numbers, part, strict=True)
                ]
                await _execute(connection, announce(self._schema, notices))
            self.sent += len(part)

    def _part(self) -> list[Message]:
        part = [self._take()]
        characters = len(part[0].body)
        while self._waiting and len(part) < AT_ONCE:
            characters += len(self._waiting[0].body)
            if characters > CHARACTERS_AT_ONCE:
                break
            part.append(self._take())
        return part

    def _take(self) -> Message:
        message = self._waiting.popleft()
        self._characters -= len(message.body)
        return message

    def _give_up(self, count: int, reason: str) -> None:
        self.lost += count
        _log.warning("%d message%s lost: %s", count, " was" if count == 1 else "s were", reason)


async def _execute(connection: AsyncConnection, query: Query[T]) -> T:
    cursor = await connection.execute(query.sql, query.params, prepare=True)
    return query.read(await cursor.fetchall())
