"""The database's time as a worker knows it, without asking.

Every commit reports the database's time at a moment before its answer arrives. So (that time - the monotonic time of
the arrival) is never more than the true difference between the two clocks, and the largest value seen is the best one:
`now()` is never ahead of the database, and behind it only by the delay of the fastest answer. Old observations are
dropped, since clocks drift and are set.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

WINDOW = 30.0
"""Seconds after which an observation gives way to a newer one; after twice as many it is forgotten."""

_START = datetime(1970, 1, 1, tzinfo=UTC)


class DatabaseClock:
    """An estimate of the database's clock.

    Args:
        monotonic: the current time of the monotonic clock, in seconds.

    Example:
        clock.observe(committed_at)
        deadline = clock.now() + timedelta(hours=1)
    """

    def __init__(self, monotonic: float | None = None) -> None:
        self._last: datetime | None = None
        self._current: float | None = None
        self._previous: float | None = None
        self._since = time.monotonic() if monotonic is None else monotonic

    def observe(self, at: datetime) -> None:
        """Note that the database's time was `at` or later just now."""
        if at is self._last:
            return  # another write of the same batch: the first one said the same, and sooner
        self._last = at
        monotonic = time.monotonic()
        offset = (at - _START).total_seconds() - monotonic
        if monotonic - self._since > WINDOW:
            self._previous, self._current, self._since = self._current, None, monotonic
        if self._current is None or offset > self._current:
            self._current = offset

    def now(self) -> datetime:
        """The database's time; never ahead of it.

        Raises:
            RuntimeError: nothing has been observed yet.
        """
        return _START + timedelta(seconds=self._offset() + time.monotonic())

    def seconds_until(self, when: datetime) -> float:
        """Seconds from now until the database's clock shows `when`; not positive when it is past."""
        return (when - _START).total_seconds() - self._offset() - time.monotonic()

    def _offset(self) -> float:
        known = [offset for offset in (self._current, self._previous) if offset is not None]
        if not known:
            raise RuntimeError("the database's time is not known before the first answer")
        return max(known)
