"""Moments that every part can hold: Python, the database, the clocks of a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

LAST = datetime(9999, 12, 31, tzinfo=UTC)
"""The last moment that anything is waited for: a day before Python's calendar ends."""


def in_utc(moment: datetime, what: str) -> datetime:
    """A moment in UTC, as a plain datetime, whatever its class.

    Args:
        moment: with a time zone.
        what: who was given it, for messages.

    Raises:
        ValueError: it is none, has no time zone, or lies outside of the calendar.

    Example:
        >>> in_utc(datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "run_at")
        datetime.datetime(2030, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise ValueError(
            f"{what}={moment!r}: expected a datetime with a time zone, e.g. datetime.now(timezone.utc) + "
            "timedelta(hours=1)"
        )
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        utc = None
    if utc is None or utc > LAST:
        raise ValueError(f"{what}={moment!r}: out of the range of time in UTC; expected at most {LAST.isoformat()}")
    return datetime(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, UTC)


def after(now: datetime, wait: timedelta) -> datetime:
    """The moment that much later than another; the last moment there is if the calendar ends before that."""
    return now + wait if wait <= LAST - now else max(now, LAST)
