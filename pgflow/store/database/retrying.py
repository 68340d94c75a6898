"""How long a client goes on trying, and which errors another try may mend.

Everything that a client sends may be sent again: what it starts has ids that the client made, and the rest only reads.
"""

from __future__ import annotations

import time
from uuid import UUID

import psycopg

from pgflow.store.database.backoff import Backoff
from pgflow.store.database.silence import NoAnswer
from pgflow.store.database.sqlstate import DATA, PASSING

PATIENCE = 10.0
"""Seconds after its first failure for which a statement is tried again while the database cannot be reached."""

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class Retries:
    """The tries of one statement.

    Args:
        limit: seconds for all of them together; None: any.
        until: the monotonic time by which the caller wants an answer, if that is sooner.
    """

    def __init__(self, limit: float | None = None, until: float | None = None) -> None:
        began = time.monotonic()
        if limit is not None:
            until = began + limit if until is None else min(until, began + limit)
        self.until = until
        """The monotonic time by which there must be an answer; None: whenever."""
        self._began = began
        self._patient_until: float | None = None
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)

    @property
    def left(self) -> float | None:
        """Seconds until then."""
        return None if self.until is None else max(0.0, self.until - time.monotonic())

    def pause(self, error: psycopg.Error) -> float:
        """Seconds to wait before the next try.

        Raises:
            NoAnswer: the time is over, and it is not known what became of the statement.
            psycopg.Error: the same error: another try would not help, or it has been tried for long enough.
        """
        if not is_passing(error):
            raise error
        now = time.monotonic()
        if self.until is not None and now >= self.until:
            raise self.late(str(error)) from error
        if self._patient_until is None:
            self._patient_until = now + PATIENCE
        if now > self._patient_until:
            raise error
        pause = self._backoff.spread_pause()
        return pause if self.until is None else min(pause, self.until - now)

    def late(self, found: str) -> NoAnswer:
        """The error for when the time is over."""
        return NoAnswer(
            f"the database gave no answer within {time.monotonic() - self._began:.3g} s: {found}. Expected one within "
            "the `call_timeout` of the client, or the caller's own timeout. What was sent may have been done all the "
            "same"
        )


def with_id(error: NoAnswer, id: UUID, what: str) -> NoAnswer:
    """The same error, and how to make sure that what was asked for is done once."""
    return NoAnswer(f"{error}: ask for it again with id={str(id)!r}, the id that this {what} has, and it is done once")


def is_passing(error: psycopg.Error) -> bool:
    """Whether another try may succeed."""
    if is_meeting(error):
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(PASSING)


def is_meeting(error: BaseException) -> bool:
    """Whether another session did the same at the same moment; the next attempt will see it."""
    return isinstance(error, psycopg.errors.UniqueViolation)


def is_refusal(error: BaseException) -> bool:
    """Whether the error is about what was sent, so that sending it again would not help."""
    if not isinstance(error, psycopg.Error):
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    return error.sqlstate.startswith(DATA) and not is_meeting(error)
