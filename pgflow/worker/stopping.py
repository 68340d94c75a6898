"""Work that nobody waits for any more once the worker is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of some work; None if the worker was stopped first, which cancels the work.

    Example:
        connection = await unless(self._stopped, self._connect())
    """
    loop = asyncio.get_running_loop()
    working, waiting = loop.create_task(work), loop.create_task(stopped.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.wait([working, waiting])
    return None if working.cancelled() else working.result()
