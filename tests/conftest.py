"""Fixtures of all tests: a server for the run, a database for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import databases
from tests.quick import QUICK

# How long an example takes says something of the machine, and of what else it does.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_stack = ExitStack()
_SYSTEM_15 = Path("/usr/lib/postgresql/15/bin")


def pytest_configure(config: pytest.Config) -> None:
    """Start the server once, in the process that the others inherit from."""
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        os.environ[databases.VARIABLE] = _stack.enter_context(databases.server())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it again."""
    _stack.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the quick subset."""
    for item in items:
        if item.nodeid.startswith(QUICK):
            item.add_marker(pytest.mark.quick)


@pytest.fixture(scope="session")
def server_dsn() -> str:
    """The server's DSN, of a database that no test writes to."""
    return os.environ[databases.VARIABLE]


@pytest.fixture
def database_dsn(server_dsn: str) -> Iterator[str]:
    """An empty database."""
    with databases.database(server_dsn) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def template(server_dsn: str) -> Iterator[str]:
    """The name of a migrated database to copy."""
    from pgflow.store.schema.migrations import migrate

    with databases.database(server_dsn) as dsn:
        migrate(dsn)
        yield databases.name_of(dsn)


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """A database with the schema in it."""
    with databases.database(server_dsn, template) as dsn:
        yield dsn


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that an unprivileged server can reach."""
    with databases.directory() as made:
        yield made


@pytest.fixture(scope="session")
def pg15_dsn() -> Iterator[str]:
    """A server of the oldest PostgreSQL that is supported, where the system has one."""
    if not _SYSTEM_15.is_dir():
        pytest.skip(f"no PostgreSQL 15 in {_SYSTEM_15}")
    with databases.embedded(binaries=_SYSTEM_15) as dsn:
        yield dsn
