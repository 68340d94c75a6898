"""Dispatch: thousands in a few round trips, and one at a time; beside the bare statement."""

from __future__ import annotations

import time

import psycopg

import pgflow
from benchmarks.figures import Figure, ratio
from benchmarks.flows import noop
from benchmarks.plan import Plan
from pgflow.uuid7 import uuid7

_ONE = """
WITH started AS (INSERT INTO pgflow.workflows (id, name, input) VALUES (%(id)s, 'noop', '{}') RETURNING id)
INSERT INTO pgflow.runs (workflow_id, name, status, wake_at) SELECT id, 'noop', 'pending', now() FROM started
"""

_MANY = """
WITH started AS (
    INSERT INTO pgflow.workflows (id, name, input) SELECT given.id, 'noop', '{}'
        FROM unnest(%(ids)s::uuid[]) AS given (id)
    RETURNING id)
INSERT INTO pgflow.runs (workflow_id, name, status, wake_at) SELECT id, 'noop', 'pending', now() FROM started
"""


def run(plan: Plan) -> list[Figure]:
    """No worker runs meanwhile."""
    many, single = plan.scaled(20_000), plan.scaled(2_000)
    figures: dict[str, list[float]] = {"many": [], "single": [], "bare many": [], "bare single": []}
    for _ in range(plan.repeats):
        with plan.server.database() as dsn, psycopg.connect(dsn, autocommit=True) as connection:
            bare_one(connection, 100)
            figures["bare single"].append(rate(single, lambda: bare_one(connection, single)))
            figures["bare many"].append(rate(many, lambda: bare_many(connection, many)))
        with plan.server.database() as dsn, pgflow.SyncClient(dsn) as client:
            dispatch_one(client, 100)
            figures["single"].append(rate(single, lambda: dispatch_one(client, single)))
            figures["many"].append(rate(many, lambda: client.dispatch_many(noop, [{}] * many)))
    return [
        Figure("dispatch_many", "1/s", figures["many"], f"{many:,} workflows"),
        Figure("dispatch_many, bare statement", "1/s", figures["bare many"]),
        ratio("dispatch_many / bare statement", figures["many"], figures["bare many"]),
        Figure("dispatch, one at a time", "1/s", figures["single"], f"{single:,} workflows"),
        Figure("dispatch, bare statement", "1/s", figures["bare single"]),
        ratio("dispatch / bare statement", figures["single"], figures["bare single"]),
    ]


def rate(count: int, work: object) -> float:
    """How many a second."""
    began = time.perf_counter()
    work()  # type: ignore[operator]
    return count / (time.perf_counter() - began)


def dispatch_one(client: pgflow.SyncClient, count: int) -> None:
    """One after the other."""
    for _ in range(count):
        client.dispatch(noop)


def bare_one(connection: psycopg.Connection[tuple[object, ...]], count: int) -> None:
    """The same by one prepared statement each."""
    for _ in range(count):
        connection.execute(_ONE, {"id": uuid7()}, prepare=True)


def bare_many(connection: psycopg.Connection[tuple[object, ...]], count: int) -> None:
    """The same, 2,000 in a statement."""
    for first in range(0, count, 2_000):
        ids = [uuid7() for _ in range(min(2_000, count - first))]
        connection.execute(_MANY, {"ids": ids}, prepare=True)
