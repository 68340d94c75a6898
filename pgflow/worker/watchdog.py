"""Notices a blocked event loop and names the code that blocks it.

The loop ticks; a thread looks whether it still does. When it has not for a second, the thread logs what the loop's thread
is executing, once for each time that it is blocked. The lease is not in danger: heartbeats come from a thread of their own.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

log = logging.getLogger("pgflow.worker")

TICK = 0.25
"""Seconds between two ticks of the loop."""


class Watchdog:
    """Watches the running loop of the thread that starts it.

    Parameters:
        describe: what the loop works on at the moment, for the log ("workflow ..."), or None.
        threshold: seconds without a tick that count as blocked.

    Example:
        watchdog = Watchdog(lambda: None)
        watchdog.start()
    """

    def __init__(self, describe: Callable[[], str | None], threshold: float = 1.0) -> None:
        self._describe = describe
        self._threshold = threshold
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
        self._thread = threading.Thread(
            target=self._watch, args=(watched,), name="pgflow watchdog", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        if self._handle is not None:
            self._handle.cancel()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, watched: int) -> None:
        told: float | None = None
        while not self._stopped.wait(TICK):
            last = self._last
            silent = time.monotonic() - last
            if silent < self._threshold or told == last:
                continue
            told = last
            self.blocked += 1
            frame = sys._current_frames().get(watched)
            stack = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else "unknown"
            log.warning(
                "the event loop has been blocked for %.1f s by %s. Nothing else runs in this process meanwhile. Make slow "
                "code a plain `def` activity, which runs in a thread. It is executing:\n%s",
                silent,
                self._describe() or "code outside of workflows, such as an `async def` activity",
                stack,
            )
