"""A task in the background: started once, cancelled at the end, reported if it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

_log = logging.getLogger("pgflow.store")


class BackgroundTask:
    """Runs a coroutine that should never end, until it is stopped.

    Args:
        run: the coroutine function to run.
        name: of the task, for logs.
        on_death: called when it has stopped because its own code raised an error.

    Example:
        background = BackgroundTask(self._run, "pgflow journal", on_death)
        background.start()
        await background.stop()
    """

    __slots__ = ("_name", "_on_death", "_run", "task")

    def __init__(
        self,
        run: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        on_death: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._run = run
        self._name = name
        self._on_death = on_death
        self.task: asyncio.Task[None] | None = None
        """The task, from start to stop."""

    def start(self) -> None:
        """Begin on the running event loop, unless it has begun."""
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._run(), name=self._name)
            self.task.add_done_callback(partial(report_death, then=self._on_death))

    async def stop(self) -> None:
        """Cancel it, and wait until it has ended.

        Raises:
            Exception: the error by which it had ended before.
        """
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def report_death(task: asyncio.Task[None], then: Callable[[BaseException], None] | None = None) -> None:
    """Log the error by which a task that should never end did end, and hand it on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.critical("%s stopped, since its own code raised an error", task.get_name(), exc_info=error)
        if then is not None:
            then(error)
