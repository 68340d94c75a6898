"""The lifespan of a worker: what its activities share is made before the first claim and taken down after the last
attempt.

    enter --> the context manager's first half --> held until `leave` --> its second half
                 |                                  |                       '-- an error: ends `run`
                 '-- an error, or a stop: ends      '-- it ends by itself (a task group of it fails): the worker fails

Both halves run in one task: cancel scopes and task groups demand it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from pgflow.definitions.functions import place
from pgflow.errors import LifespanFailed
from pgflow.execution.activities.resources import Resources

LifespanFunction = Callable[[], AbstractAsyncContextManager[Any]]


class Lifespan:
    """Enters and leaves the context manager that a function gives; without a function there is nothing to do.

    Args:
        fn: gives an async context manager, which yields an object, or a tuple or list of them, or None.
        objects: what the worker was given besides.
        on_failure: called when it ends though it was not asked to leave.

    Raises:
        TypeError: `fn` cannot give one.
    """

    def __init__(
        self, fn: LifespanFunction | None, objects: Resources, on_failure: Callable[[BaseException], None]
    ) -> None:
        self._fn = fn
        self._name = "" if fn is None else place(fn)
        self._objects = objects
        self._on_failure = on_failure
        self._entered = asyncio.Event()
        self._leave = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.resources = objects
        """What activities share, once it is entered."""

    async def enter(self) -> None:
        """Make what activities share.

        Raises:
            LifespanFailed: that was not to be had.
        """
        fn = self._fn
        if fn is None:
            return
        task = self._task = asyncio.get_running_loop().create_task(self._hold(fn), name="pgflow lifespan")
        entered = asyncio.ensure_future(self._entered.wait())
        try:
            await asyncio.wait([task, entered], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the worker is stopped meanwhile
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            entered.cancel()
        if task.done():
            self._task = None
            task.result()
        else:
            task.add_done_callback(self._ended)

    async def leave(self, hurried: asyncio.Event) -> None:
        """Take it down; once `hurried` is set, by cancelling it.

        Raises:
            LifespanFailed: an error left it.
        """
        task, self._task = self._task, None
        if task is None:
            return
        self._leave.set()
        hurry = asyncio.ensure_future(hurried.wait())
        await asyncio.wait([task, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def _hold(self, fn: LifespanFunction) -> None:
        doing = "entered"
        try:
            async with _manager(fn, self._name) as given:
                objects = given if type(given) in (tuple, list) else () if given is None else (given,)
                self.resources = self._objects.with_more(objects, f"the lifespan {self._name}")
                self._entered.set()
                doing = "held"
                await self._leave.wait()
                doing = "left"
        except Exception as error:
            what = {
                "entered": "failed when it was entered, before anything was claimed",
                "held": "ended by itself",
                "left": "failed when it was left, after everything was handed back",
            }[doing]
            raise LifespanFailed(
                f"the worker's lifespan {self._name} {what}: {type(error).__name__}: {error}"
            ) from error

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._leave.is_set() or task.cancelled():
            return
        error = task.exception() or LifespanFailed(
            f"the worker's lifespan {self._name} ended by itself; it has to last as long as the worker"
        )
        self._on_failure(error)


def checked_lifespan(fn: Any, where: str = "lifespan") -> LifespanFunction | None:
    """`fn`, if it may give an async context manager.

    Args:
        where: who was given it, for messages.

    Raises:
        TypeError: it cannot.
    """
    if fn is None:
        return None
    expected = f"{where}: expected a function without arguments that gives an async context manager"
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise TypeError(f"{expected}, found the generator {place(fn)}: put @contextlib.asynccontextmanager on it")
    if not isinstance(fn, type) and hasattr(fn, "__aenter__"):
        raise TypeError(f"{expected}, found {fn!r:.200}: it has been called already: give the function")
    if not callable(fn):
        raise TypeError(f"{expected}, found {fn!r:.200}")
    return fn  # type: ignore[no-any-return]  # what it gives is seen when it is called


def _manager(fn: LifespanFunction, name: str) -> AbstractAsyncContextManager[Any]:
    given = fn()
    if hasattr(given, "__aenter__") and hasattr(given, "__aexit__"):
        return given
    if inspect.iscoroutine(given):
        given.close()
    raise TypeError(
        f"{name} gave {given!r:.200}, which is no async context manager: put @contextlib.asynccontextmanager on an "
        "`async def` that yields"
    )
