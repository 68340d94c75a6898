"""The heartbeats of one attempt, on their way from wherever the activity runs to the worker's loop; and silence."""

from __future__ import annotations

import asyncio
import threading
import time
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


class Silence:
    """Ends an attempt that has given no heartbeat for too long.

    While the event loop is blocked nobody may be heard: after a look that comes far too late the time counts anew.

    Args:
        loop: the worker's.
        limit: seconds without a heartbeat, at most.
        heard_at: when the last heartbeat was, by `time.monotonic()`; 0 if there was none.
        deadline: of the attempt; it passes at once when the silence has lasted too long.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: float,
        heard_at: Callable[[], float],
        deadline: asyncio.Timeout,
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._heard_at = heard_at
        self._deadline = deadline
        self._since = time.monotonic()
        self.broken = False
        """Whether it has ended the attempt."""
        self._watch_until(self._since + limit)

    def stop(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _watch_until(self, when: float) -> None:
        self._due = when
        self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._look)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._due > self._limit / 2:
            self._since = now
        until = max(self._since, self._heard_at()) + self._limit
        if until > now:
            self._watch_until(until)
        elif not self._deadline.expired():
            self.broken = True
            self._deadline.reschedule(self._loop.time())
