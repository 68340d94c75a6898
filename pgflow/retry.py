"""Retry policies: when an activity that failed is tried again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from pgflow.errors import NonRetryable, SerializationError


def seconds(value: timedelta | float, what: str) -> float:
    """A duration in seconds.

    Raises:
        ValueError: it is negative, not finite, or no duration at all.

    Example:
        >>> seconds(timedelta(minutes=1), "timeout")
        60.0
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        result = float(value)
    else:
        raise ValueError(f"{what}: expected a timedelta or a number of seconds, found {value!r}")
    if not math.isfinite(result) or result < 0:
        raise ValueError(f"{what}: expected a duration that is finite and not negative, found {value!r}")
    return result


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and how long after a failure, an activity is tried again.

    Parameters:
        max_attempts: attempts in all, at least 1.
        initial: the delay after the first failure (a timedelta or seconds).
        multiplier: how the delay grows from one failure to the next, at least 1.
        maximum: the longest delay (a timedelta or seconds).
        jitter: shorten each delay by a random share of up to half, so that many failures do not return at once.
        non_retryable: exception classes, or names of classes, after which nothing is tried again.

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
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise ValueError(f"RetryPolicy(max_attempts={self.max_attempts!r}): expected a whole number, at least 1")
        if not self.multiplier >= 1 or not math.isfinite(self.multiplier):
            raise ValueError(f"RetryPolicy(multiplier={self.multiplier!r}): expected a number of at least 1")
        seconds(self.initial, "RetryPolicy(initial=...)")
        seconds(self.maximum, "RetryPolicy(maximum=...)")
        for refused in self.non_retryable:
            if not isinstance(refused, str) and not (
                isinstance(refused, type) and issubclass(refused, BaseException)
            ):
                raise ValueError(
                    f"RetryPolicy(non_retryable=...): expected exception classes or their names, found {refused!r}"
                )

    def retries(self, error: BaseException) -> bool:
        """Whether a failure by this error is tried again at all (as long as attempts are left).

        Example:
            >>> RetryPolicy(non_retryable=("ValueError",)).retries(ValueError())
            False
        """
        if isinstance(error, NonRetryable | SerializationError):
            return False
        names = {kind.__name__ for kind in type(error).__mro__}
        return not any(
            refused in names if isinstance(refused, str) else isinstance(error, refused)
            for refused in self.non_retryable
        )

    def delay(self, failed: int, chance: float) -> float | None:
        """Seconds until the next attempt; None when no attempt is left.

        Parameters:
            failed: attempts that have failed so far.
            chance: a random number in [0, 1), for the jitter.
        """
        if failed >= self.max_attempts:
            return None
        longest = seconds(self.maximum, "maximum")
        first = seconds(self.initial, "initial")
        try:
            grown = first * self.multiplier ** (failed - 1)
        except OverflowError:
            grown = longest
        wait = min(grown, longest)
        return wait * (1 - chance / 2) if self.jitter else wait
