"""Fixtures of the schema's tests."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests import databases
from tests.schema.waits import Waits


@pytest.fixture(params=["as given", "15"])
def any_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty database, once on the server of the other tests and once on the oldest that is supported."""
    server = request.getfixturevalue("server_dsn" if request.param == "as given" else "pg15_dsn")
    with databases.database(server) as dsn:
        yield dsn


@pytest.fixture
def sql(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection, in autocommit, that finds pgflow's names without the schema."""
    with psycopg.connect(dsn, autocommit=True, options="-c search_path=pgflow") as connection:
        yield connection


@pytest.fixture
def waits() -> Iterator[Waits]:
    """Runs what has to wait for a lock, in a thread of its own."""
    with ThreadPoolExecutor() as threads:
        yield Waits(threads)
