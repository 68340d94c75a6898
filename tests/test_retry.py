"""Which failures are tried again, and when: by the errors themselves, whatever they are wrapped in."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgflow
from pgflow.testing import run


class Refused(Exception):
    """Not to be tried again."""

    class Rarely(Exception):
        """A class in a class."""


class Declined(Refused):
    """One of them."""


class Lying(BaseExceptionGroup[Any]):
    """Says of itself that it holds itself."""

    @property
    def exceptions(self) -> tuple[BaseException, ...]:
        return (self,)


def shared() -> BaseException:
    """Two to the power of forty ways to one error."""
    error: Exception = Refused()
    for _ in range(40):
        error = ExceptionGroup("both", [error, error])
    return error


HERE = Refused.__module__


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        ((), pgflow.NonRetryable()),
        ((), ExceptionGroup("all", [OSError(), pgflow.NonRetryable()])),
        ((), BaseExceptionGroup("all", [ExceptionGroup("some", [pgflow.SerializationError()])])),
        ((Refused,), Declined()),
        ((Refused,), ExceptionGroup("all", [OSError(), Declined()])),
        ((Refused,), shared()),
        ((Refused,), Lying("itself", [Refused()])),
        (("Refused",), Declined()),
        ((f"{HERE}.Refused",), Declined()),
        ((f"{HERE}.Refused",), ExceptionGroup("all", [Declined()])),
        ((f"{HERE}.Refused.Rarely",), Refused.Rarely()),
        (("Refused.Rarely",), Refused.Rarely()),
        (("builtins.ValueError",), UnicodeError()),
        (("psycopg.errors.UniqueViolation",), psycopg.errors.UniqueViolation()),
        (("psycopg.errors.OperationalError",), psycopg.OperationalError()),
        (("ExceptionGroup",), ExceptionGroup("all", [OSError()])),
        ([Refused], Refused()),
    ],
)
def test_what_is_not_tried_again(refused: Any, error: BaseException) -> None:
    assert not pgflow.RetryPolicy(non_retryable=refused).retries(error)


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        ((), OSError()),
        ((), ExceptionGroup("all", [OSError()])),
        ((Declined,), Refused()),
        (("elsewhere.Refused",), Refused()),
        ((f"{HERE}.Rarely",), Refused.Rarely()),
        (("builtins.KeyError",), ExceptionGroup("all", [ValueError()])),
    ],
)
def test_what_is_tried_again(refused: Any, error: BaseException) -> None:
    assert pgflow.RetryPolicy(non_retryable=refused).retries(error)


@given(
    st.integers(1, 10**6),
    st.floats(0, 1e7),
    st.floats(1, 1e300),
    st.floats(0, 1e7),
    st.integers(1, 10**6),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_never_longer_than_the_longest(
    attempts: int, initial: float, multiplier: float, maximum: float, failed: int, chance: float
) -> None:
    policy = pgflow.RetryPolicy(max_attempts=attempts, initial=initial, multiplier=multiplier, maximum=maximum)
    delay = policy.delay(failed, chance)
    if failed >= attempts:
        assert delay is None
    else:
        assert delay is not None and 0 <= delay <= maximum and (initial > 0 or delay == 0)


class Hasty(pgflow.RetryPolicy):
    """An application's own: its delays are not checked where it is made."""

    def delay(self, failed: int, chance: float) -> float | None:
        return math.inf


class Broken(pgflow.RetryPolicy):
    """An application's own, with an error in it."""

    def retries(self, error: BaseException) -> bool:
        raise LookupError("broken")


@pytest.mark.parametrize(("policy", "said"), [(Hasty, "finite"), (Broken, "broken")])
def test_a_policy_that_cannot_be_followed_ends_the_attempts(
    policy: Callable[[], pgflow.RetryPolicy], said: str
) -> None:
    @pgflow.activity(retry=policy())
    async def fails(ctx: pgflow.ActivityContext) -> None:
        raise OSError("gone")

    @pgflow.workflow
    async def call(ctx: pgflow.WorkflowContext) -> None:
        await ctx.activity(fails)

    error = run(call).error
    assert isinstance(error, pgflow.ActivityFailed) and error.attempts == 1 and said in error.error_message
