"""Fixtures of the store's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from pgflow.store.journal.journal import Journal
from tests.store.scene import Scene


@pytest.fixture
def scene(dsn: str) -> Iterator[Scene]:
    """A fresh database with the schema."""
    scene = Scene(dsn)
    yield scene
    scene.close()


@pytest.fixture
def worker(scene: Scene) -> int:
    """A registered worker."""
    return scene.worker()


@pytest_asyncio.fixture
async def journal(scene: Scene, worker: int) -> AsyncIterator[Journal]:
    """That worker's journal, running."""
    journal = Journal(scene.database, worker)
    journal.start()
    yield journal
    await journal.close()
