"""Messages in the database: statements to store, announce, find and remove them.

    stored, without a wait for the disk -> announced by a notification, whole if it fits -> in the inboxes of
    subscribers
              '-> for `RETENTION` in the table: for large bodies, late subscribers, and those who get no notifications

No statement here is part of a transaction of history.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pgflow.model.rows import Message
from pgflow.store.database.channels import PAYLOAD_BYTES, Notice, message_channel, message_payload
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query

RETENTION = 600.0
"""The least seconds for which a message stays in the table; workers remove it soon after."""

LATE = 1_000
"""How many messages before the last of a kind are searched for a later one of the same workflow."""

TRIM_AT_ONCE = 1_000
"""The most messages that one statement removes."""

POLL_AT_ONCE = 1_000
"""The most messages that one statement finds."""


def store(schema: str, messages: Sequence[Message]) -> Query[list[int]]:
    """The statement that stores messages; their numbers, in order.

    Example:
        query = store("pgflow", [Message(workflow_id, "progress", "{}", '{"done":7}')])
    """
    params = {
        "names": [message.name for message in messages],
        "tags": [message.tags for message in messages],
        "bodies": [message.body for message in messages],
        "workflow_ids": [message.workflow_id for message in messages],
        "places": [message.place or None for message in messages],
    }
    return Query(statement("message_send", schema), params, _numbers)


def announce(schema: str, notices: Iterable[Notice]) -> Query[None]:
    """The notifications that announce stored messages."""
    payloads = [message_payload(notice) for notice in notices]
    params = {"channel": message_channel(schema), "payloads": payloads}
    return Query(statement("notify", schema), params, _nothing)


def start(schema: str, name: str, tags: str, last: bool) -> Query[tuple[int, Notice | None]]:
    """Where a subscription begins: the highest number so far and, if `last`, the last message of these tags."""
    params = {"name": name, "tags": tags, "last": last, "small": PAYLOAD_BYTES, "late": LATE}

    def read(rows: Sequence[tuple[Any, ...]]) -> tuple[int, Notice | None]:
        top, id, found_tags, body, workflow_id, place = rows[0]
        return top, None if id is None else Notice(id, name, found_tags, body, workflow_id, place)

    return Query(statement("message_start", schema), params, read)


def poll(schema: str, after: dict[str, int], known: list[int]) -> Query[tuple[int, list[Notice]]]:
    """For some names the messages after a number each, without those that are known, and the highest number of all."""
    params = {
        "names": list(after),
        "after": list(after.values()),
        "known": known,
        "small": PAYLOAD_BYTES,
        "limit": POLL_AT_ONCE,
    }
    return Query(statement("message_poll", schema), params, _found)


def body(schema: str, notice: Notice) -> Query[str | None]:
    """The body of a message that was announced without it; None: it is no longer there."""
    params = {"id": notice.id, "name": notice.name}
    return Query(statement("message_body", schema), params, lambda rows: rows[0][0] if rows else None)


def trim(schema: str) -> Query[int]:
    """Remove messages whose time is over, at most `TRIM_AT_ONCE` of them; returns how many."""
    params = {"seconds": RETENTION, "limit": TRIM_AT_ONCE}
    return Query(statement("message_trim", schema), params, lambda rows: int(rows[0][0]))


def _numbers(rows: Sequence[tuple[Any, ...]]) -> list[int]:
    return sorted(row[0] for row in rows)


def _found(rows: Sequence[tuple[Any, ...]]) -> tuple[int, list[Notice]]:
    return rows[0][0], [Notice(*row[1:]) for row in rows if row[1] is not None]


def _nothing(rows: Sequence[tuple[Any, ...]]) -> None:
    return None
