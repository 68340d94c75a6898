"""The notification channels of a schema: what they are called and what their payloads hold.

A database can hold several pgflow schemas, so the names are made from the schema's name, the same way in Python and in
SQL: `'pgflow_wake_' || left(md5(schema), 16)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeGuard
from uuid import UUID

WAKE = "pgflow_wake_"
DONE = "pgflow_done_"
MAIL = "pgflow_mail_"
CHORE = "pgflow_chore_"
MESSAGE = "pgflow_message_"

PAYLOAD_BYTES = 7_999
"""The largest payload that PostgreSQL takes."""

IDS_IN_A_PAYLOAD = 200
"""The most ids of one `done` payload, so that it fits."""

_DEADLINE = re.compile(r"\+[0-9]{1,9}(\.[0-9]{1,20})?")
_FROM = "pgflow.from"
_SENDER = re.compile(rf',?"{re.escape(_FROM)}":"([0-9a-f]{{32}})\.([0-9]{{1,19}})"\}}$')


def _suffix(schema: str) -> str:
    return hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def wake_channel(schema: str) -> str:
    """The channel that says that a queue has work; the payload is the queue's name, and perhaps what is to be done
    there.

    Example:
        wake_channel("pgflow")    # 'pgflow_wake_' and 16 hexadecimal digits
    """
    return WAKE + _suffix(schema)


def done_channel(schema: str) -> str:
    """The channel that says which workflows have ended; the payload is their ids, joined by commas."""
    return DONE + _suffix(schema)


def mail_channel(schema: str) -> str:
    """The channel that says that something was sent to a workflow; the payload is the id of the worker that has or had
    it, or 0. (Or a plus sign, and in how many seconds a deadline is due that was set.)
    """
    return MAIL + _suffix(schema)


def chore_channel(schema: str) -> str:
    """The channel that says that there is something to do that one worker does for all; the payload names it."""
    return CHORE + _suffix(schema)


def message_channel(schema: str) -> str:
    """The channel of messages: the payload is a whole message, or one without a body, which then has to be read by its
    id.
    """
    return MESSAGE + _suffix(schema)


def wake_payload(queue: str, id: UUID | None = None) -> str:
    """The payload that says that a queue has work: a line that names the queue, and one that names the workflow if it
    is a single new one.
    """
    return queue if id is None else f"{queue}\n{id}"


def parse_wake(payload: str) -> tuple[str, UUID | None]:
    """The queue that has work, and the new workflow that it is, if it is one. Anybody may notify: an id need not be one
    of ours.
    """
    queue, told, text = payload.rpartition("\n")
    try:
        return (queue, UUID(text)) if told else (payload, None)
    except ValueError:
        return payload, None


def parse_mail(payload: str) -> int:
    """The worker that has or had the workflow to which something was sent; 0: any. Anybody may notify."""
    return int(payload) if payload.isascii() and payload.isdigit() else 0


HINTED = 600.0
"""Seconds until a deadline that is hinted at, at most: workers look for those that are further away."""


def is_near(seconds: float | None) -> TypeGuard[float]:
    """Whether a deadline in so many seconds is hinted at."""
    return seconds is not None and seconds <= HINTED


def deadline_payload(seconds: float) -> str:
    """The payload, on the channel of mail, that says that a deadline was set; to older code it says that somebody has
    mail.
    """
    return f"+{seconds:.3f}"


def parse_deadline(payload: str) -> float | None:
    """In how many seconds a deadline is due that was set; None: it is another payload. Anybody may notify."""
    return float(payload[1:]) if _DEADLINE.fullmatch(payload) else None


class Notice(NamedTuple):
    """A message as it is announced. `tags` and `body` are JSON text; a large body is not there.

    Of two messages of a workflow the later one has the higher `place`; None: that is not known.
    """

    id: int
    name: str
    tags: str
    body: str | None
    workflow_id: UUID | None = None
    place: int | None = None


def message_payload(notice: Notice) -> str:
    """The payload that announces a message: a line of id and name, a line of tags, and the body if it fits.

    The workflow and its place stand among the tags, where code that does not know of them passes over them.
    """
    tags = notice.tags
    if notice.workflow_id is not None and notice.place is not None:
        tags = f'{tags[:-1]}{"," if len(tags) > 2 else ""}"{_FROM}":"{notice.workflow_id.hex}.{notice.place}"}}'
    head = f"{notice.id} {notice.name}\n{tags}"
    if notice.body is None or len(notice.body) > PAYLOAD_BYTES:
        return head
    whole = f"{head}\n{notice.body}"
    return whole if len(whole.encode()) <= PAYLOAD_BYTES else head


def parse_message(payload: str) -> Notice | None:
    """What a payload announces; None: nothing. Anybody may notify."""
    head, _, rest = payload.partition("\n")
    id, _, name = head.partition(" ")
    if not (id.isascii() and id.isdigit() and len(id) < 19) or not name:
        return None
    tags, _, body = rest.partition("\n")
    if (found := _SENDER.search(tags)) is None:
        return Notice(int(id), name, tags, body or None)
    return Notice(int(id), name, tags[: found.start()] + "}", body or None, UUID(found[1]), int(found[2]))


def done_payloads(ids: Iterable[UUID | str]) -> Iterator[str]:
    """The payloads that announce `ids`, as few as possible."""
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
