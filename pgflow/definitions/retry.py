"""Retry policies: when an activity that failed is tried again."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pgflow.codec.exception_groups import everything_in
from pgflow.errors import NonRetryable, SerializationError

LONGEST = 100 * 366 * 86_400.0
"""The longest duration in seconds: a century, which every clock, thread and server can handle."""

LONGEST_DELAY = 365 * 86_400.0
"""The most seconds between two attempts: a year."""

FOREVER = "forever"

_NAME = re.compile(r"[^\W\d]\w*(\.([^\W\d]\w*|<locals>))*")
"""A class's name, alone or behind its module's."""


def seconds(value: timedelta | float, what: str, longest: float = LONGEST) -> float:
    """A duration in seconds.

    Args:
        value: a timedelta, or seconds.
        what: whose duration it is, for messages.
        longest: the most seconds that it may have.

    Raises:
        ValueError: it is negative, not finite, longer than that, or no duration at all.

    Example:
        >>> seconds(timedelta(minutes=1), "timeout")
        60.0
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf if value > 0 else -math.inf
    else:
        raise ValueError(f"{what}: expected a timedelta or a number of seconds, found {value!r}")
    if not math.isfinite(result) or result < 0:
        raise ValueError(f"{what}: expected a duration that is finite and not negative, found {_shown(value)}")
    if result > longest:
        raise ValueError(
            f"{what}: expected at most {longest:,.0f} seconds ({longest / 86_400:,.0f} days), found {_shown(value)}"
        )
    return result


def _shown(value: Any) -> str:
    """A number as messages show it; Python does not print numbers of thousands of digits."""
    return (
        f"an integer of {value.bit_length()} bits"
        if isinstance(value, int) and value.bit_length() > 1024
        else repr(value)
    )


def kept_for(value: timedelta | float | str, what: str) -> float:
    """How long something is kept, in seconds; infinity for "forever".

    Raises:
        ValueError: it is neither a duration above 0 nor "forever".

    Example:
        >>> kept_for(timedelta(days=1), "keep")
        86400.0
    """
    if value == FOREVER:
        return math.inf
    if isinstance(value, str):
        raise ValueError(f'{what}={value!r}: expected a timedelta, a number of seconds, or "{FOREVER}"')
    found = seconds(value, what)
    if found == 0:
        raise ValueError(f'{what}={value!r}: expected more than 0 seconds, or "{FOREVER}"')
    return found


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long after a failure, an activity is tried again.

    Args:
        max_attempts: attempts in all, at least 1.
        initial: the delay after the first failure (a timedelta or seconds, a year at most).
        multiplier: how the delay grows from one failure to the next, at least 1.
        maximum: the longest delay (a timedelta or seconds, a year at most).
        jitter: shorten each delay by a random share of up to half, so that many failures do not return at once.
        non_retryable: exception classes, or their names (alone or behind that of their module), after which nothing is
            tried again, nor after an exception group that holds one.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> RetryPolicy(max_attempts=3, initial=1.0, jitter=False).delay(2, 0.0)
        2.0
    """

    max_attempts: int = 5
    initial: timedelta | float = 0.5
    multiplier: float = 2.0
    maximum: timedelta | float = 60.0
    jitter: bool = True
    non_retryable: tuple[type[BaseException] | str, ...] = ()

    def __post_init__(self) -> None:
        attempts, multiplier = self.max_attempts, self.multiplier
        if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
            raise ValueError(f"RetryPolicy(max_attempts={attempts!r}): expected a whole number, at least 1")
        if (
            isinstance(multiplier, bool)
            or not isinstance(multiplier, int | float)
            or not 1 <= multiplier <= sys.float_info.max
        ):
            raise ValueError(f"RetryPolicy(multiplier={_shown(multiplier)}): expected a finite number of at least 1")
        seconds(self.initial, "RetryPolicy(initial=...)", LONGEST_DELAY)
        seconds(self.maximum, "RetryPolicy(maximum=...)", LONGEST_DELAY)
        object.__setattr__(self, "non_retryable", _checked(self.non_retryable))

    def retries(self, error: BaseException) -> bool:
        """Whether an activity that failed with this error is tried again at all (as long as attempts are left).

        A group is not tried again if anything in it is not: another attempt would meet that again.

        Example:
            >>> RetryPolicy(non_retryable=("ValueError",)).retries(ExceptionGroup("both", [OSError(), ValueError()]))
            False
        """
        return not any(self._refuses(type(one)) for one in everything_in(error))

    def _refuses(self, kind: type[BaseException]) -> bool:
        # Only the class counts: an instance may claim anything.
        if issubclass(kind, NonRetryable | SerializationError):
            return True
        return any(
            _is_called(kind, refused) if isinstance(refused, str) else issubclass(kind, refused)
            for refused in self.non_retryable
        )

    def delay(self, failed: int, chance: float) -> float | None:
        """Seconds until the next attempt; None when no attempt is left.

        Args:
            failed: attempts that have failed so far.
            chance: a random number in [0, 1), for the jitter.
        """
        if failed >= self.max_attempts:
            return None
        longest = seconds(self.maximum, "maximum")
        first = seconds(self.initial, "initial")
        try:
            grown = first * float(self.multiplier) ** (failed - 1) if first else 0.0
        except OverflowError:
            grown = longest
        wait = min(grown, longest)
        return wait * (1 - chance / 2) if self.jitter else wait


def _checked(given: Any) -> tuple[type[BaseException] | str, ...]:
    """The classes and names of a policy.

    Raises:
        ValueError: something that is neither.
    """
    expected = "RetryPolicy(non_retryable=...): expected a tuple of exception classes or their names"
    if not isinstance(given, tuple | list | set | frozenset):
        raise ValueError(f"{expected}, found {given!r}")
    for refused in given:
        if isinstance(refused, str):
            if not _NAME.fullmatch(refused):
                raise ValueError(f'{expected}, such as "ValueError" or "myapp.errors.Refused"; found {refused!r}')
        elif not isinstance(refused, type) or not issubclass(refused, BaseException):
            raise ValueError(f"{expected}, found {refused!r}")
    return tuple(given)


def _is_called(kind: type[BaseException], name: str) -> bool:
    """Whether a class, or one of its bases, has a name: its own, qualified by its module, or one by which it is
    imported.
    """
    module, dot, last = name.rpartition(".")
    imported = vars(sys.modules[module]).get(last) if dot and module in sys.modules else None
    return any(
        name in (each.__name__, each.__qualname__, f"{each.__module__}.{each.__qualname__}") or each is imported
        for each in kind.__mro__
    )


def timeout_of(value: timedelta | float | None, which: str = "timeout") -> float | None:
    """A timeout of an activity in seconds; None: for ever.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return None
    limit = seconds(value, f"{which} of an activity")
    if limit == 0:
        raise ValueError(f"{which} of an activity: expected more than 0 seconds, or None for no limit")
    return limit


def checked_retry(policy: RetryPolicy) -> RetryPolicy:
    """`policy`, if it is one."""
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"retry: expected a pgflow.RetryPolicy, found {policy!r}")
    return policy
