"""The scheduler: pumps runs from plain callbacks of the worker's event loop, in slices of time; each once, however
often it was scheduled.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from pgflow.codec import traceback_of
from pgflow.execution.engine.run import Run
from pgflow.execution.event_loop.spinning import blocking, interrupt, line_of
from pgflow.execution.event_loop.stage import offstage, stage
from pgflow.observe.log_records import fields_of

T = TypeVar("T")

log = logging.getLogger("pgflow.worker")

SLICE = 0.01
"""Seconds of pumping before the event loop serves its sockets again."""

SLOW = 1.0
"""Seconds of computing between two steps after which a workflow is named in the log."""


class Scheduler:
    """The queue of runs that have something to do.

    It pumps from a callback, never from within a task, so that a run's own loop can be drained there on every version
    of Python; and always in a later callback than the one that asked, so that whoever hands something to a run goes on
    first.

    An error that a pump raises is one of the engine's own. It fails that one run: if the run were handed back, it would
    meet the error again on one worker after the other. If the run cannot even be failed, the worker must give up its
    lease: `on_death`.

    Args:
        on_death: called when a run has met such an error and could not be failed with it.
    """

    def __init__(self, on_death: Callable[[BaseException], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_death = on_death
        self._queue: deque[Run] = deque()
        self._armed = False
        self.current: Run | None = None
        """The run whose code is executing now."""

    def schedule(self, run: Run) -> None:
        """Have `run` pumped in a later callback."""
        if not run.scheduled:
            run.scheduled = True
            self._queue.append(run)
            if not self._armed:
                self._armed = True
                self._loop.call_soon(self._turn)

    def describe(self) -> str | None:
        """The workflow whose code is executing now, for the watchdog."""
        run = self.current
        return run.label if run is not None else None

    def interrupt(self, seconds: float, frame: FrameType | None) -> bool:
        """From the watchdog's thread: end the workflow whose code has been executing for so long;
        whether there is one.
        """
        run = self.current
        loop = getattr(run, "loop", None)  # it may leave memory meanwhile
        return run is not None and loop is not None and interrupt(loop, blocking(run.label, seconds, line_of(frame)))

    def _turn(self) -> None:
        queue = self._queue
        now = time.monotonic()
        until = now + SLICE
        try:
            with stage():
                for _ in range(len(queue)):
                    run = self.current = queue.popleft()
                    run.scheduled = False
                    started = now
                    try:
                        run.pump(started)
                    except KeyboardInterrupt:
                        raise
                    except BaseException as error:
                        with offstage():
                            self._fail(run, error)
                    now = time.monotonic()
                    if now - started > SLOW:
                        with offstage():
                            log.warning(
                                "%s did not come to rest for %.1f s: its own code computes for too long between two "
                                "steps, and no other workflow runs meanwhile. Move the computation into a plain `def` "
                                "activity.",
                                run.label,
                                now - started,
                                extra=fields_of(run.claimed),
                            )
                    if now > until:
                        break
        finally:
            self.current = None
            if queue:
                self._loop.call_soon(self._turn)
            else:
                self._armed = False

    def guarded(self, run: Run, call: Callable[[], T]) -> T | None:
        """Call into a run: an error of the engine's own fails that run, not the part of the worker that calls it."""
        try:
            return call()
        except Exception as error:
            self._fail(run, error)
            return None

    def _fail(self, run: Run, error: BaseException) -> None:
        log.critical("%s: pgflow's own code failed\n%s", run.label, traceback_of(error), extra=fields_of(run.claimed))
        try:
            run.fail_by_engine(error)
        except Exception as further:
            self._on_death(further)
