"""The watchdog: notices a blocked event loop, names the code that blocks it, and ends a workflow that never yields.

The event loop ticks, and a thread checks that it does. After a second without a tick, the thread logs what the loop's
thread is executing, once for each time that it is blocked. The lease is not in danger: heartbeats come from a thread of
their own.

    blocked for a second                            logged
    ... by one workflow's code, for `LIMIT` of CPU  an exception in its code ends that workflow
        or `PATIENCE` seconds                       (`execution/event_loop/spinning.py`), which fails it
    ... and it survives several such exceptions     hopeless: the process has to end

CPU seconds are those of the blocked thread. Other seconds are counted in checks, so that the time in which the process
was stopped, or waited for its turn on a busy machine, does not count.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("pgflow.worker")

TICK = 0.25
"""Seconds between two ticks of the loop."""

THRESHOLD = 1.0
"""Seconds without a tick that count as blocked."""

LIMIT = 10.0
"""Seconds of CPU that a workflow's code may take between two steps."""

PATIENCE = 60.0
"""Seconds that it may take without using the CPU, as in a call that blocks."""

EXCEPTIONS = 5
"""How many exceptions are raised in code that does not yield, one for each further tenth of those limits, before the
case is hopeless.
"""


class Watchdog:
    """Watches the running loop of the thread that starts it.

    Args:
        describe: what the loop is working on, for the log ("workflow ..."), or None.
        interrupt: called in the watchdog's thread with the seconds, and the frame that the loop's thread is executing,
            to end the workflow that the loop is working on; returns whether there is one.
        hopeless: called in the watchdog's thread when no exception has ended such code.
        late: called on the loop at each tick with the seconds by which it comes late.

    Example:
        watchdog = Watchdog(lambda: None)
        watchdog.start()
    """

    def __init__(
        self,
        describe: Callable[[], str | None],
        interrupt: Callable[[float, FrameType | None], bool] = lambda seconds, frame: False,
        hopeless: Callable[[], None] = lambda: None,
        late: Callable[[float], None] | None = None,
    ) -> None:
        self._describe = describe
        self._interrupt = interrupt
        self._hopeless = hopeless
        self._late = late
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._handle: asyncio.TimerHandle | None = None
        self.blocked = 0
        """How many times the loop was blocked."""

    @property
    def silent(self) -> float:
        """Seconds since the last tick; from any thread."""
        return time.monotonic() - self._last

    def start(self) -> None:
        """Begin to watch the running loop."""
        loop = asyncio.get_running_loop()
        watched = threading.get_ident()

        def tick() -> None:
            before, self._last = self._last, time.monotonic()
            if self._late is not None and self._handle is not None:
                self._late(self._last - before - TICK)
            self._handle = loop.call_later(TICK, tick)

        tick()
        self._thread = threading.Thread(target=self._watch, args=(watched,), name="pgflow watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._handle is not None:
            self._handle.cancel()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, watched: int) -> None:
        blocked: _Blocked | None = None
        while not self._stopped.wait(TICK):
            last = self._last
            silent = time.monotonic() - last
            if silent < THRESHOLD:
                continue
            described = self._describe()
            if blocked is None or (blocked.last, blocked.by) != (last, described):
                logged = blocked is not None and blocked.last == last
                blocked = _Blocked(last, described, watched)
                if not logged:
                    self._log(silent, described, watched)
            elif described is not None and blocked.goes_on():
                self._end(blocked, silent, watched)

    def _log(self, silent: float, described: str | None, watched: int) -> None:
        self.blocked += 1
        frame = sys._current_frames().get(watched)
        stack = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else "unknown"
        log.warning(
            "the event loop has been blocked for %.1f s by %s. Nothing else runs in this process meanwhile. Make slow "
            "code a plain `def` activity, which runs in a thread. It is executing:\n%s",
            silent,
            described or "code outside of workflows, such as an `async def` activity",
            stack,
        )

    def _end(self, blocked: _Blocked, silent: float, watched: int) -> None:
        if blocked.exceptions == EXCEPTIONS:
            log.critical(
                "%s has blocked the event loop for %.1f s, and no exception ends it (is there an `except:` in it, or a "
                "call that blocks?)",
                blocked.by,
                silent,
            )
            self._hopeless()
        elif self._interrupt(silent, sys._current_frames().get(watched)):
            log.error("%s has blocked the event loop for %.1f s and is ended", blocked.by, silent)
        blocked.exceptions += 1


class _Blocked:
    """One period in which one workflow's code blocks the loop.

    Args:
        last: the last tick before it.
        by: the workflow.
        watched: the thread that is blocked.
    """

    def __init__(self, last: float, by: str | None, watched: int) -> None:
        self.last = last
        self.by = by
        self.exceptions = 0
        self._looks = 0
        self._clock = time.pthread_getcpuclockid(watched) if hasattr(time, "pthread_getcpuclockid") else None
        self._began = self._used()

    def _used(self) -> float:
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def goes_on(self) -> bool:
        """Note that another check has found it blocked: whether it is time for the next exception."""
        self._looks += 1
        over = 1 + self.exceptions / 10
        return self._looks * TICK >= PATIENCE * over or self._used() - self._began >= LIMIT * over
