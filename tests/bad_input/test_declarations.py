"""Impossible declarations are refused where they are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgflow


async def fine(ctx: pgflow.WorkflowContext) -> None: ...


def plain(ctx: pgflow.WorkflowContext) -> None: ...


async def without_context() -> None: ...


async def endless() -> AsyncIterator[None]:
    yield


class Thing:
    """No dataclass and no model."""


@dataclass
class Undeclared:
    by: str


@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext) -> None: ...


@pgflow.workflow(name="checkout")
async def other(ctx: pgflow.WorkflowContext) -> None: ...


DSN = "host=/nowhere"
WRONG: list[tuple[str, type[Exception], str, Callable[[], Any]]] = [
    (
        "plain workflow",
        TypeError,
        "plain: expected an `async def`, found a plain `def`",
        lambda: pgflow.workflow(plain),  # type: ignore[arg-type]  # refused
    ),
    ("class as workflow", TypeError, "expected an `async def`", lambda: pgflow.workflow(Thing)),  # type: ignore[arg-type]  # refused
    ("no context", TypeError, "expected a first parameter for the context", lambda: pgflow.workflow(without_context)),  # type: ignore[arg-type]  # refused
    (
        "no context for an activity",
        TypeError,
        "expected a first parameter for the context",
        lambda: pgflow.activity(without_context),  # type: ignore[arg-type]  # refused
    ),
    ("class as activity", TypeError, "expected a function, found", lambda: pgflow.activity(Thing)),  # type: ignore[arg-type]  # refused
    ("empty name", ValueError, "name", lambda: pgflow.workflow(name="")(fine)),
    ("NUL in a name", ValueError, "name", lambda: pgflow.workflow(name="a\0b")(fine)),
    ("long name", ValueError, "name", lambda: pgflow.activity(name="x" * 201)(fine)),  # type: ignore[arg-type]  # refused
    (
        "timeout of nothing",
        ValueError,
        "timeout of an activity: expected more than 0 seconds",
        lambda: pgflow.activity(timeout=0),
    ),
    (
        "timeout as text",
        ValueError,
        "expected a timedelta or a number of seconds",
        lambda: pgflow.activity(timeout="30"),  # type: ignore[call-overload]  # refused
    ),
    ("retry as number", TypeError, "expected a pgflow.RetryPolicy, found 3", lambda: pgflow.activity(retry=3)),  # type: ignore[call-overload]  # refused
    ("no attempts", ValueError, "max_attempts=0", lambda: pgflow.RetryPolicy(max_attempts=0)),
    ("negative delay", ValueError, "not negative", lambda: pgflow.RetryPolicy(initial=-1)),
    ("a delay of years", ValueError, "at most 31,536,000 seconds", lambda: pgflow.RetryPolicy(initial=1e12)),
    (
        "a longest delay of years",
        ValueError,
        r"maximum=.*365 days",
        lambda: pgflow.RetryPolicy(maximum=timedelta(days=366)),
    ),
    (
        "a delay of thousands of digits",
        ValueError,
        "expected a duration that is finite",
        lambda: pgflow.RetryPolicy(initial=10**5000),
    ),
    ("a delay that is no number", ValueError, "finite", lambda: pgflow.RetryPolicy(maximum=float("nan"))),
    ("an endless multiplier", ValueError, "finite number", lambda: pgflow.RetryPolicy(multiplier=float("inf"))),
    (
        "a multiplier of thousands of digits",
        ValueError,
        "finite number",
        lambda: pgflow.RetryPolicy(multiplier=10**5000),
    ),
    ("a text as multiplier", ValueError, "finite number", lambda: pgflow.RetryPolicy(multiplier="2")),  # type: ignore[arg-type]  # refused
    (
        "one name for many",
        ValueError,
        "expected a tuple of exception classes",
        lambda: pgflow.RetryPolicy(non_retryable="ValueError"),  # type: ignore[arg-type]  # refused
    ),
    (
        "one class for many",
        ValueError,
        "expected a tuple of exception classes",
        lambda: pgflow.RetryPolicy(non_retryable=ValueError),  # type: ignore[arg-type]  # refused
    ),
    (
        "what is no class",
        ValueError,
        "expected a tuple of exception classes",
        lambda: pgflow.RetryPolicy(non_retryable=(int,)),  # type: ignore[arg-type]  # refused
    ),
    ("what is no name", ValueError, "such as", lambda: pgflow.RetryPolicy(non_retryable=("not a name",))),
    ("a timeout of ages", ValueError, "36,600 days", lambda: pgflow.activity(timeout=1e12)),
    (
        "a lease of months",
        ValueError,
        "lease: expected at most 2,592,000",
        lambda: pgflow.Worker(DSN, workflows=[checkout], lease=1e7),
    ),
    (
        "an endless poll",
        ValueError,
        "poll: expected",
        lambda: pgflow.Worker(DSN, workflows=[checkout], poll=float("inf")),
    ),
    (
        "an endless grace",
        ValueError,
        "grace: expected",
        lambda: pgflow.Worker(DSN, workflows=[checkout], grace=float("inf")),
    ),
    ("shrinking delay", ValueError, "multiplier=0.5", lambda: pgflow.RetryPolicy(multiplier=0.5)),
    ("signal of a plain class", TypeError, "expected a dataclass or a pydantic model", lambda: pgflow.signal(Thing)),
    ("message of a function", TypeError, "expected a dataclass or a pydantic model", lambda: pgflow.message(plain)),  # type: ignore[call-overload]  # refused
    ("no workflows", ValueError, "expected at least one workflow", lambda: pgflow.Worker(DSN, workflows=[])),
    ("a function as workflow", TypeError, "expected workflows", lambda: pgflow.Worker(DSN, workflows=[fine])),  # type: ignore[list-item]  # refused
    (
        "two of one name",
        ValueError,
        'two workflows are called "checkout": .*checkout and .*other. Give one of them another name',
        lambda: pgflow.Worker(DSN, workflows=[checkout, other]),
    ),
    ("concurrency", ValueError, "concurrency=0", lambda: pgflow.Worker(DSN, workflows=[checkout], concurrency=0)),
    (
        "a generator as lifespan",
        TypeError,
        "lifespan: .*found the generator .*endless: put @contextlib.asynccontextmanager on it",
        lambda: pgflow.Worker(DSN, workflows=[checkout], lifespan=endless),  # type: ignore[arg-type]  # refused
    ),
    (
        "a lifespan that was called",
        TypeError,
        "called already: give the function",
        lambda: pgflow.Worker(DSN, workflows=[checkout], lifespan=asynccontextmanager(endless)()),  # type: ignore[arg-type]  # refused
    ),
    (
        "a class among objects",
        TypeError,
        "found the class Thing; expected an object of it",
        lambda: pgflow.Worker(DSN, workflows=[checkout], objects=[Thing]),
    ),
    (
        "two objects of one type",
        ValueError,
        "two objects of the type .*Thing",
        lambda: pgflow.Worker(DSN, workflows=[checkout], objects=[Thing(), Thing()]),
    ),
    (
        "an object in place of a list",
        TypeError,
        "expected a list of objects, found .*Thing",
        lambda: pgflow.Worker(DSN, workflows=[checkout], objects=Thing()),  # type: ignore[arg-type]  # refused
    ),
    ("queues", ValueError, "at least one name", lambda: pgflow.Worker(DSN, workflows=[checkout], queues=[])),
    (
        "lease",
        ValueError,
        "lease=0.1: expected at least 1 seconds",
        lambda: pgflow.Worker(DSN, workflows=[checkout], lease=0.1),
    ),
    ("payload limit", ValueError, "payload_limit=0", lambda: pgflow.Worker(DSN, workflows=[checkout], payload_limit=0)),
    (
        "schema of a worker",
        ValueError,
        "cannot be the name",
        lambda: pgflow.Worker(DSN, workflows=[checkout], schema=""),
    ),
    ("schema of a client", ValueError, "cannot be the name", lambda: pgflow.Client(DSN, schema="a%b")),
    ("payload limit of a client", ValueError, "payload_limit=0", lambda: pgflow.SyncClient(DSN, payload_limit=0)),
    ("connections of a client", ValueError, "connections=0", lambda: pgflow.Client(DSN, connections=0)),
    ("schema of a migration", ValueError, "expected a name of 1 to 63 bytes", lambda: pgflow.migrate(DSN, "")),
]


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        (None, "dsn=None: expected a postgresql:// URL or key=value words"),
        ("nonsense", 'the DSN is not understood: missing "=" after "'),
        ("postgresql://user:secret@[host/app", "the DSN is not understood"),
        ("host=a hots=b", "the DSN is not understood"),
    ],
)
def test_a_dsn_that_is_none(dsn: Any, said: str) -> None:
    for use in (pgflow.Client, pgflow.SyncClient, pgflow.migrate, lambda dsn: pgflow.Worker(dsn, workflows=[checkout])):
        with pytest.raises(ValueError) as caught:
            use(dsn)
        assert said in str(caught.value) and "secret" not in str(caught.value)


async def test_a_server_that_does_not_answer() -> None:
    """As psycopg says it; the command line adds what to check."""
    with pytest.raises(psycopg.OperationalError, match="nowhere"):
        async with pgflow.Client(DSN):
            pass
    with pytest.raises(psycopg.OperationalError, match="nowhere"), pgflow.SyncClient(DSN):
        pass
    with pytest.raises(psycopg.OperationalError, match="nowhere"):
        await pgflow.Worker(DSN, workflows=[checkout]).run()
    with pytest.raises(psycopg.OperationalError, match="nowhere"):
        pgflow.migrate(DSN)


@pytest.mark.parametrize(
    ("error", "match", "declare"), [wrong[1:] for wrong in WRONG], ids=[wrong[0] for wrong in WRONG]
)
def test_refused_at_once(error: type[Exception], match: str, declare: Callable[[], Any]) -> None:
    with pytest.raises(error, match=match):
        declare()


def test_the_same_workflow_twice_is_no_duplicate() -> None:
    pgflow.Worker(DSN, workflows=[checkout, checkout])
    pgflow.Worker(DSN, workflows=[checkout, checkout.options(name="another")])
