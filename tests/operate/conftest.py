"""A client of either kind whose operations name an actor."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import pgflow
from tests.operate.audit_rows import Both


@pytest_asyncio.fixture(params=["asynchronous", "synchronous"])
async def kim(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[Both]:
    """A client of somebody's."""
    if request.param == "synchronous":
        with pgflow.SyncClient(dsn, actor="kim") as client:
            yield Both(client)
    else:
        async with pgflow.Client(dsn, actor="kim") as other:
            yield Both(other)
