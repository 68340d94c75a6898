"""How long to wait between tries: longer after each failure in a row, up to a bound."""

from __future__ import annotations

import random

FIRST_BACKOFF = 0.05
"""Seconds after the first failed attempt to connect."""

LONGEST_BACKOFF = 2.0
"""The most seconds between attempts to connect."""


class Backoff:
    """The pauses after failures in a row: each is twice as long as the one before.

    Args:
        first: Seconds of the first pause.
        longest: The most seconds of any.

    Example:
        backoff = Backoff()
        while not await connected():
            await asyncio.sleep(backoff.spread_pause())
    """

    __slots__ = ("_first", "_longest", "upcoming")

    def __init__(self, first: float = FIRST_BACKOFF, longest: float = LONGEST_BACKOFF) -> None:
        self._first = first
        self._longest = longest
        self.reset()

    def reset(self) -> None:
        """A try has succeeded: begin with the first pause again."""
        self.upcoming = min(self._first, self._longest)
        """Seconds of the next pause."""

    def pause(self) -> float:
        """Seconds to wait now; the pause after that is longer."""
        pause, self.upcoming = self.upcoming, min(self.upcoming * 2, self._longest)
        return pause

    def spread_pause(self) -> float:
        """As `pause`, but between half of it and all of it: many that failed together do not return together."""
        return self.pause() * random.uniform(0.5, 1.0)
