"""Options of a workflow's start, from `workflow.options(...)` and from keywords of `dispatch`: checked and merged."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from pgflow.definitions.functions import is_name
from pgflow.definitions.retry import seconds
from pgflow.definitions.tags import tags_text
from pgflow.model.moments import in_utc

UNSET: Any = MappingProxyType({})
"""Stands for what is not given, where None is a value."""

ONE = ("id", "tags", "unique", "run_at", "priority", "queue", "timeout", "connection")
"""What `client.dispatch` and `client.start` take; `timeout` from a workflow's options alone."""

MANY = ("tags", "run_at", "priority", "queue", "timeout", "connection")
"""What `client.dispatch_many` takes."""

CHILD = ("tags", "unique", "detached", "run_at", "priority", "queue", "timeout")
"""What `ctx.dispatch` and `ctx.start` take."""

LONGEST_REASON = 2_000
"""The most characters of a reason."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""What no text of a database can have: a NUL, half of a surrogate pair."""

_NOT_FOR = {
    "detached": "only a child can be detached",
    "id": "each workflow has an id of its own; a child's is made of its place in history",
    "unique": "those of one call would all be one",
    "connection": "a child is started by its parent's worker",
}


def given_options(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not UNSET}


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that are out of their range.

    Raises:
        ValueError: tags that are no flat object, a naive `run_at`, a priority or queue out of range, an id that is
            none, a timeout that is no duration above 0.
    """
    for name, value in given.items():
        if name == "run_at" and value is not None:
            in_utc(value, "run_at")
        elif name == "priority":
            check_priority(value)
        elif name == "queue":
            check_queue(value)
        elif name == "tags":
            tags_text(value)
        elif name == "timeout":
            deadline_of(value)
        elif name == "id" and value is not None:
            uuid_of(value)


def merged_options(
    chosen: Mapping[str, Any], given: Mapping[str, Any], allowed: Collection[str], where: str
) -> Mapping[str, Any]:
    """The options that a workflow carries, overridden by those given at its start.

    Args:
        chosen: by `workflow.options(...)`.
        given: by keywords.
        allowed: names of options that have a meaning here.
        where: who asks, for messages.

    Raises:
        TypeError: an option has no meaning here.
    """
    if not chosen:
        return given
    for name in chosen:
        if name not in allowed:
            raise TypeError(
                f"{where}: the workflow has options({name}=...), which have no meaning here: "
                f"{_NOT_FOR.get(name, 'nothing is started')}"
            )
    return {**chosen, **given}


def deadline_of(timeout: timedelta | float | None) -> float | None:
    """The seconds that a whole workflow may take; None: any.

    Raises:
        ValueError: it is no duration above 0.
    """
    if timeout is None:
        return None
    found = seconds(timeout, "timeout of a workflow")
    if found == 0:
        raise ValueError("timeout of a workflow: expected more than 0 seconds, or None for no deadline")
    return found


def check_priority(priority: Any) -> None:
    """Refuse what is no priority.

    Raises:
        ValueError: so it is.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
        raise ValueError(f"priority={priority!r}: expected a whole number of 32 bits")


def check_queue(queue: Any) -> None:
    """Refuse what cannot be a queue's name.

    Raises:
        ValueError: so it is.
    """
    if not is_name(queue):
        raise ValueError(f"queue={queue!r}: expected a name of 1 to 200 printable characters")


def actor_of(actor: Any) -> str | None:
    """Who operates, as the table `audit` records it; None: the database's role.

    Raises:
        ValueError: it is no name.
    """
    if actor is not None and not is_name(actor):
        raise ValueError(
            f"actor={actor!r:.300}: expected a name of 1 to 200 printable characters, or None for the database's role"
        )
    return actor


def reason_of(reason: Any) -> str | None:
    """Why something is done, as the table `audit` records it.

    Raises:
        ValueError: it is no text, or a long one.
    """
    if reason is not None and (
        not isinstance(reason, str) or len(reason) > LONGEST_REASON or _UNSTORABLE.search(reason)
    ):
        raise ValueError(f"reason={reason!r:.100}: expected a text of at most {LONGEST_REASON:,} characters")
    return reason


def uuid_of(id: UUID | str) -> UUID:
    """An id as a UUID.

    Raises:
        ValueError: it is none.
    """
    if isinstance(id, UUID):
        return id
    if isinstance(id, str) and re.fullmatch(r"[0-9a-fA-F-]{32,36}", id):
        return UUID(id)
    raise ValueError(f"id={id!r}: expected a UUID")
