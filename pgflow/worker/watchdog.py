"""Notices a blocked event loop, names the code that blocks it, and ends a workflow whose code does not give it back.

The loop ticks; a thread looks whether it still does. When it has not for a second, the thread logs what the loop's
thread is executing, once for each time that it is blocked. The lease is not in danger: heartbeats come from a thread of
their own.

    blocked for a second                            told
    ... by one workflow's code, for `LIMIT` of CPU  that workflow is ended by an exception in its code
        or `PATIENCE` seconds                       (`execution/event_loop/spinning.py`), which fails it
    ... and it takes none of several exceptions     hopeless: the process has to end

Seconds of CPU are those of the blocked thread, and others are counted in looks: a process that was stopped, or that had
to wait for its turn on a busy machine, has not been computing.
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
"""How many are raised in code that does not give the loop back, one for each further tenth of those limits, before it
is hopeless.
"""


class Watchdog:
    """Watches the running loop of the thread that starts it.

    Args:
        describe: what the loop works on at the moment, for the log ("workflow ..."), or None.
        interrupt: called in the watchdog's thread with the seconds and the frame that the loop's thread executes: end
            the code of the workflow that the loop works on; whether there is one.
        hopeless: called in the watchdog's thread when such code has taken no exception.

    Example:
        watchdog = Watchdog(lambda: None)
        watchdog.start()
    """

    def __init__(
        self,
        describe: Callable[[], str | None],
        interrupt: Callable[[float, FrameType | None], bool] = lambda seconds, frame: False,
        hopeless: Callable[[], None] = lambda: None,
    ) -> None:
        self._describe = describe
        self._interrupt = interrupt
        self._hopeless = hopeless
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._handle: asyncio.TimerHandle | None = None
        self.blocked = 0
        """How often the loop has been found blocked."""

    def start(self) -> None:
        """Begin to watch the loop that this is called on."""
        loop = asyncio.get_running_loop()
        watched = threading.get_ident()

        def tick() -> None:
            self._last = time.monotonic()
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
                told = blocked is not None and blocked.last == last
                blocked = _Blocked(last, described, watched)
                if not told:
                    self._tell(silent, described, watched)
            elif described is not None and blocked.goes_on():
                self._end(blocked, silent, watched)

    def _tell(self, silent: float, described: str | None, watched: int) -> None:
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
                "%s has blocked the event loop for %.1f s, and takes no exception (is there an `except:` in it, or a "
                "call that blocks?)",
                blocked.by,
                silent,
            )
            self._hopeless()
        elif self._interrupt(silent, sys._current_frames().get(watched)):
            log.error("%s has blocked the event loop for %.1f s and is ended", blocked.by, silent)
        blocked.exceptions += 1


class _Blocked:
    """One time that the loop is blocked by one workflow's code.

    Args:
        last: the tick since which it is.
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
        """Another look has found it: whether it is time for the next exception."""
        self._looks += 1
        over = 1 + self.exceptions / 10
        return self._looks * TICK >= PATIENCE * over or self._used() - self._began >= LIMIT * over
