"""Runs are drained outside of any task; if the caller is in one, on a thread of their own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def outside_of_tasks(call: Callable[[], T]) -> T:
    """Execute `call` where no event loop runs, and return its result, so that this works in async tests too."""
    if asyncio._get_running_loop() is None:
        return call()
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="pgflow testing") as thread:
        return thread.submit(context.run, call).result()
