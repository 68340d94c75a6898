"""Fixtures of the messages' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

import pgflow
from tests.messages import flows


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[pgflow.Client]:
    """A client."""
    async with pgflow.Client(dsn) as client:
        yield client


@pytest_asyncio.fixture
async def worker(dsn: str) -> AsyncIterator[pgflow.Worker]:
    """A worker that knows all of the workflows here."""
    async with pgflow.Worker(dsn, workflows=flows.ALL) as worker:
        yield worker
