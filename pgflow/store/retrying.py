"""How long a client goes on trying, and which errors another try may mend.

Everything a client sends may be sent again: what it starts has ids of its own making, and the rest only reads.
"""

from __future__ import annotations

import random
import time

import psycopg

PATIENCE = 10.0
"""Seconds for which a statement is tried again while the database cannot be reached."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0

_PASSING = ("08", "57P", "53300", "40001", "40P01")
"""Lost connections, servers that stop or start, too many connections, and meetings with one's like."""

_REFUSED = ("22", "23", "54")
"""Data exceptions, integrity violations, exceeded limits."""


class Tries:
    """One statement's tries."""

    def __init__(self) -> None:
        self._until = time.monotonic() + PATIENCE
        self._pause = _FIRST_PAUSE

    def pause(self, error: psycopg.Error) -> float:
        """Seconds to wait before the next try.

        Raises:
            psycopg.Error: the same error: another try would not help, or it has been tried for long enough.
        """
        if not is_passing(error) or time.monotonic() > self._until:
            raise error
        pause, self._pause = self._pause, min(self._pause * 2, _LONGEST_PAUSE)
        return pause * random.uniform(0.5, 1.0)


def is_passing(error: psycopg.Error) -> bool:
    """Whether another try may succeed."""
    if is_meeting(error):
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(_PASSING)


def is_meeting(error: BaseException) -> bool:
    """Whether the same was done by somebody else in the very same moment: the next try sees it."""
    return isinstance(error, psycopg.errors.UniqueViolation)


def is_refusal(error: BaseException) -> bool:
    """Whether the error speaks of what was sent, so that sending it again would not help."""
    if not isinstance(error, psycopg.Error):
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    return error.sqlstate.startswith(_REFUSED) and not is_meeting(error)
