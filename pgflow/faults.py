"""Named points at which a test can hold up or fail the engine; without a test each costs one dictionary look-up.

A crash or a race is tested by forcing the interleaving, and some moments (between two statements of one transaction)
can be reached from nowhere else. Nothing in production installs a hook.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

Hook = Callable[[], Awaitable[object] | None]

_hooks: dict[str, Hook] = {}


@contextmanager
def install(hooks: dict[str, Hook]) -> Iterator[None]:
    """Run the `with` block with `hooks` at the named points.

    Example:
        with faults.install({"loops.after_move": barrier.wait}):
            ...
    """
    _hooks.update(hooks)
    try:
        yield
    finally:
        for name in hooks:
            _hooks.pop(name, None)


def watched() -> bool:
    """Whether a test has installed any hook: then statements that otherwise leave together are sent one by one."""
    return bool(_hooks)


async def reach(name: str) -> None:
    """Pass the point `name` in asynchronous code, running the hook there if a test installed one."""
    if _hooks and (hook := _hooks.get(name)) is not None:
        waited = hook()
        if inspect.isawaitable(waited):
            await waited


def hit(name: str) -> None:
    """Pass the point `name` in synchronous code."""
    if _hooks and (hook := _hooks.get(name)) is not None:
        hook()
