"""What a check is, and what is said when one cannot be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import psycopg

from pgflow.model.diagnosis import Finding
from pgflow.store.database.query import Query

STATEMENT = 5.0
"""Seconds that the statement of one check may take."""

SHOWN = 5
"""Ids that a finding names, at most."""


class CheckContext(NamedTuple):
    """What checks know besides the database.

    Attributes:
        schema: the schema's name, unquoted.
        clock: the time of this machine, in seconds since 1970.
        shared: whether the connection goes through a pooler that gives each transaction another session.
    """

    schema: str
    clock: Callable[[], float]
    shared: bool


class Check(NamedTuple):
    """One check.

    Attributes:
        name: what its findings are called by.
        query: the statement.
        since: the version of the schema that has what it reads.
    """

    name: str
    query: Callable[[CheckContext], Query[list[Finding]]]
    since: int = 0


Row = tuple[Any, ...]


def some(values: Sequence[Any] | None) -> tuple[str, ...]:
    """The first of some ids, as text."""
    return tuple(str(value) for value in (values or ())[:SHOWN])


def age(seconds: float | None) -> str:
    """A duration as people say it."""
    if seconds is None:
        return "unknown time"
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def many(number: int, bound: int) -> str:
    """A number that was counted up to a bound."""
    return f"{number:,}" if number < bound else f"{bound:,} or more"


def not_made(name: str, error: psycopg.Error) -> Finding:
    """What is said of a check that failed."""
    said = error.diag.message_primary or str(error).strip()
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        advice = (
            "grant the role what it needs to look: `pgflow db roles --reader ROLE --apply`, and GRANT pg_monitor "
            "TO ROLE"
        )
    elif isinstance(error, psycopg.errors.QueryCanceled):
        advice = "call `pgflow doctor` again when the server is less busy"
    else:
        advice = "see the server's log"
    return Finding(name, "warning", f"an answer within {STATEMENT:g} s", f"the check could not be made: {said}", advice)
