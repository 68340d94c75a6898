"""Waiting for something to come true in the database, instead of for time to pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pgflow


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 20.0) -> None:
    """Wait until `condition` holds; TimeoutError after so many seconds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.005)


async def status(client: pgflow.Client, handle: pgflow.WorkflowHandle[Any], wanted: str) -> None:
    """Wait until a workflow has a status."""

    async def reached() -> bool:
        return (await handle.info()).status == wanted

    await until(reached)
