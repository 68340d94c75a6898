"""The notification channels of a schema: what they are called and what their payloads hold.

A database can hold several pgflow schemas, so the names are made from the schema's name, the same way in Python and in
SQL: `'pgflow_wake_' || left(md5(schema), 16)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from uuid import UUID

WAKE = "pgflow_wake_"
DONE = "pgflow_done_"
MAIL = "pgflow_mail_"
MESSAGE = "pgflow_message_"

IDS_IN_A_PAYLOAD = 200
"""Ids of one `done` payload, at most: PostgreSQL refuses payloads of 8,000 bytes and more."""


def _suffix(schema: str) -> str:
    return hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def wake_channel(schema: str) -> str:
    """The channel that says that a queue has work; the payload is the queue's name.

    Example:
        wake_channel("pgflow")    # 'pgflow_wake_' and 16 hexadecimal digits
    """
    return WAKE + _suffix(schema)


def done_channel(schema: str) -> str:
    """The channel that says which workflows have ended; the payload is their ids, joined by commas."""
    return DONE + _suffix(schema)


def mail_channel(schema: str) -> str:
    """The channel that says that something was sent to a workflow; the payload is the id of the worker that has or had it, or 0."""
    return MAIL + _suffix(schema)


def message_channel(schema: str) -> str:
    """The channel of messages: the payload is a whole message, or says where in `messages` it lies."""
    return MESSAGE + _suffix(schema)


def done_payloads(ids: Iterable[UUID]) -> Iterator[str]:
    """The payloads that tell of `ids`, as few as possible."""
    texts = [str(workflow_id) for workflow_id in ids]
    for start in range(0, len(texts), IDS_IN_A_PAYLOAD):
        yield ",".join(texts[start : start + IDS_IN_A_PAYLOAD])


def parse_done(payload: str) -> list[UUID]:
    """The ids in a `done` payload. What is no id is passed over: anybody may notify, and a hint is only a hint."""
    ids = []
    for text in payload.split(","):
        try:
            ids.append(UUID(text))
        except ValueError:
            continue
    return ids
