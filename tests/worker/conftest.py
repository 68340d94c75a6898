"""Fixtures of the workers' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import pgflow
from tests.store.scene import Scene
from tests.worker import flows


@pytest.fixture
def scene(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Scene]:
    """A fresh database with the schema and the table of marks."""
    scene = Scene(dsn)
    scene.do(flows.MARKS)
    monkeypatch.setenv(flows.VARIABLE, dsn)
    monkeypatch.setenv("PGFLOW_TEST_LOGS", str(tmp_path))
    yield scene
    scene.close()


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[pgflow.Client]:
    """A client."""
    async with pgflow.Client(dsn) as client:
        yield client
