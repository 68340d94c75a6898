"""The stores, one after the other; the tests of this suite share one database, and touch only what is theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import count
from uuid import UUID

import pytest
import pytest_asyncio

from pgflow.store.leasing import claims
from pgflow.uuid7 import uuid7
from tests import databases
from tests.conformance.in_memory import InMemory
from tests.conformance.in_postgres import InPostgres
from tests.conformance.subject import Subject
from tests.store.scene import Scene


@pytest.fixture(scope="session")
def shared_scene(server_dsn: str, template: str) -> Iterator[Scene]:
    """A database for all of these tests."""
    with databases.database(server_dsn, template) as dsn:
        scene = Scene(dsn)
        yield scene
        scene.close()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has just woken is not left to the worker that had it last."""
    monkeypatch.setattr(claims, "PATIENCE", timedelta(0))


@pytest_asyncio.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """One store after the other."""
    subject = subject_of(request.param, request, uuid7().hex)
    yield subject
    await subject.close()


def subject_of(which: str, request: pytest.FixtureRequest, mark: str) -> Subject:
    """A store by its name."""
    return InMemory(mark) if which == "memory" else InPostgres(mark, request.getfixturevalue("shared_scene"))


@pytest.fixture
def ids() -> Iterator[UUID]:
    """Ids that nobody has, each higher than the one before."""
    first = uuid7().int
    return (UUID(int=first + number) for number in count(1))
