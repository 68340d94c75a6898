"""What the doctor's tests share: a database with a fault in it, and what is found there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgflow
from tests.worker.conftest import scene as scene

Examine = Callable[..., list[pgflow.Finding]]


def examined(dsn: str) -> pgflow.Diagnosis:
    """What the doctor finds, whether or not the schema fits."""
    with ExitStack() as stack:
        client = pgflow.SyncClient(dsn, connections=1)
        stack.push(client)
        return client.doctor()


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def only(dsn: str) -> Examine:
    """Examines the database, and sees that all findings are of one check and one level."""

    def examine(check: str, level: str, at: str | None = None) -> list[pgflow.Finding]:
        found = examined(at or dsn).findings
        assert {(finding.check, finding.level) for finding in found} == {(check, level)}, found
        assert all(finding.expected and finding.found and finding.advice for finding in found)
        return found

    return examine


@contextmanager
def role(dsn: str, *grants: str) -> Iterator[str]:
    """The DSN of a role with some rights; {name} stands for its name in each."""
    name = f"doctor_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        for grant in grants:
            ask(dsn, grant.replace("{name}", name))
        yield make_conninfo(dsn, user=name, password="secret")
    finally:
        ask(dsn, f"DROP OWNED BY {name}; DROP ROLE {name}")
