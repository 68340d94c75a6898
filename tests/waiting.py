"""Waiting for something to come true, in the database or elsewhere, instead of for time to pass."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import pgflow

PATIENCE = 60.0
"""Seconds after which a condition that does not come true fails the test; on a slow machine, beside busy cores."""


async def until(condition: Callable[[], Any], what: str = "", patience: float = PATIENCE) -> Any:
    """Wait until a condition holds; what it gave then.

    Args:
        condition: Asked again and again; a plain function or an asynchronous one.
        what: What is waited for, for the failure's message.
        patience: Seconds after which the test fails.

    Example:
        await until(lambda: scene.one("SELECT status = 'sleeping' FROM runs"), "the sleep")
    """
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        _check(deadline, patience, what, condition)
        await asyncio.sleep(0.005)


def until_blocking(condition: Callable[[], Any], what: str = "", patience: float = PATIENCE) -> Any:
    """The same in a test without an event loop, or for what must not let others of its loop go on."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        _check(deadline, patience, what, condition)
        time.sleep(0.005)
    return value


def _check(deadline: float, patience: float, what: str, condition: Callable[[], Any]) -> None:
    if time.monotonic() > deadline:
        raise AssertionError(f"waited {patience:g} s in vain for: {what or getattr(condition, '__name__', condition)}")


async def status(client: pgflow.Client, handle: pgflow.WorkflowHandle[Any], wanted: str) -> None:
    """Wait until a workflow has a status."""

    async def reached() -> bool:
        return (await handle.info()).status == wanted

    await until(reached, f"the status {wanted}")
