"""The heartbeats of one attempt, on their way from wherever the activity runs to the worker's loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

INTERVAL = 1.0
"""The fewest seconds between two heartbeats of an attempt that are passed on."""


class Heartbeats:
    """Passes the last heartbeat on, at once and then at most once in an interval.

    Args:
        loop: where `deliver` is called.
        deliver: gets the details, as JSON.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[str], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._latest: str | None = None
        self._armed = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def report(self, details: str) -> None:
        """Take a heartbeat, in any thread."""
        with self._lock:
            self._latest = details
            if self._armed or self._closed:
                return
            self._armed = True
        self._loop.call_soon_threadsafe(self._pass_on)

    def close(self) -> None:
        """Stop passing heartbeats on. To be called on the loop."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _pass_on(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
            if latest is None or self._closed:
                self._armed = False
                return
        self._timer = self._loop.call_later(INTERVAL, self._pass_on)
        self._deliver(latest)
