"""Asynchronous generators that a run's code leaves before their end."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator
from threading import get_ident
from typing import Any

from pgflow.errors import NondeterminismError

_collecting = 0
"""The thread in which the cyclic garbage collector is running."""


def _note(phase: str, info: dict[str, int]) -> None:
    global _collecting
    _collecting = get_ident() if phase == "start" else 0


gc.callbacks.append(_note)


def collecting() -> bool:
    """Whether the cyclic garbage collector is running in this thread: what it frees is freed at a moment that no replay
    repeats.
    """
    return _collecting == get_ident()


def close_at_once(generator: AsyncGenerator[Any, Any]) -> bool:
    """Close a generator without waiting; returns whether it would have had to wait for something, which is then not
    done.

    Raises:
        Exception: whatever its `finally` raises.
    """
    closing = generator.aclose()
    try:
        closing.send(None)
    except StopIteration:
        return False
    try:
        closing.throw(GeneratorExit)
    except BaseException:
        pass  # it has got the error: nothing of this run goes on
    return True


def left_generator(name: str, generator: AsyncGenerator[Any, Any]) -> NondeterminismError:
    """The error for a generator that the code has left although its end takes steps, which nobody awaits."""
    called = getattr(generator, "__qualname__", repr(generator))
    return NondeterminismError(
        f"{name}: the asynchronous generator {called} was left before its end, by `break`, `return` or an exception, "
        "and what stands in its `finally` (or after its `async with`) has to wait: nobody awaits that, so that a "
        "replay could not repeat it. Close it where it is used: `async with "
        f"contextlib.aclosing({called.rpartition('.')[2]}(...)) as values: async for value in values: ...`.",
        expected="generators that are run to their end, or closed by contextlib.aclosing",
        found=f"{called}, left before its end",
    )
