"""Fixtures of the activities' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

import pgflow
from tests.store.scene import Scene


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    """A fresh database with the schema."""
    scene = Scene(dsn)
    yield scene
    scene.close()


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[pgflow.Client]:
    """A client."""
    async with pgflow.Client(dsn) as client:
        yield client
