"""Durations and moments outside of the calendar are refused where they are given; those at its end are accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import pgflow
from pgflow.definitions.calls import Options
from pgflow.model.moments import LAST, after, in_utc
from pgflow.testing import run

WEST, EAST = timezone(timedelta(hours=-12)), timezone(timedelta(hours=14))
BEYOND = datetime.max.replace(tzinfo=WEST)
"""Within the year 9999 in its own zone, and after it in UTC."""


@pgflow.signal
@dataclass
class News:
    """Something to listen for."""


async def timeout(ctx: pgflow.WorkflowContext, wait: Any) -> None:
    async with ctx.timeout(wait):
        await ctx.sleep(0)


WAITS: dict[str, Callable[[pgflow.WorkflowContext, Any], Awaitable[Any]]] = {
    "sleep": lambda ctx, wait: ctx.sleep(wait),
    "timeout": timeout,
    "listen": lambda ctx, wait: ctx.listen(News, timeout=wait),
    "listen_many": lambda ctx, wait: ctx.listen_many(News, timeout=wait),
}
DURATIONS = [
    1e12, 1e300, float("inf"), float("-inf"), float("nan"), -1, timedelta.max, timedelta.min, 10**5000, -(10**5000),
    "soon", None, [1],
    timedelta(days=365 * 8_000), LAST - datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=1),
]  # fmt: skip


@pytest.mark.parametrize("method", WAITS)
def test_durations_are_refused_at_the_call(method: str) -> None:
    seen: list[str] = []

    @pgflow.workflow
    async def waits(ctx: pgflow.WorkflowContext) -> None:
        for wait in DURATIONS:
            if wait is None and method.startswith("listen"):
                continue
            with pytest.raises(ValueError, match=f"ctx.{method}"):
                await WAITS[method](ctx, wait)
            seen.append(repr(type(wait)))

    ran = run(waits)
    ran.output  # noqa: B018 — raises what has failed
    assert len(seen) >= len(DURATIONS) - 1 and ran.history.events == []


@pytest.mark.parametrize("method", WAITS)
def test_the_longest_duration_is_waited_for(method: str) -> None:
    @pgflow.workflow
    async def waits(ctx: pgflow.WorkflowContext) -> str:
        await WAITS[method](ctx, timedelta(days=365 * 7_000))
        return ctx.now().isoformat()

    assert run(waits).output >= "2030"


@pytest.mark.parametrize(
    "moment",
    [
        BEYOND,
        datetime.min.replace(tzinfo=EAST),
        datetime(2030, 1, 1),
        datetime.max.replace(tzinfo=UTC),
        7,
        None,
        "soon",
    ],
)
def test_moments_are_refused_at_the_call(moment: Any) -> None:
    @pgflow.workflow
    async def waits(ctx: pgflow.WorkflowContext) -> None:
        await ctx.sleep_until(moment)

    ran = run(waits)
    assert isinstance(ran.error, ValueError) and "sleep_until" in str(ran.error) and ran.history.events == []
    if moment is not None:
        with pytest.raises(ValueError, match="run_at"):
            Options(run_at=moment)


class Moment(datetime):
    """A library's own class of moments."""


def test_a_moment_is_held_in_utc_as_a_plain_datetime() -> None:
    given = Moment(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    held = in_utc(given, "run_at")
    assert held == given and type(held) is datetime and held.tzinfo is UTC
    assert Options(run_at=given).run_at == held


def test_what_is_reckoned_ends_with_the_calendar() -> None:
    assert after(LAST - timedelta(1), timedelta(2)) == LAST
    assert after(LAST, timedelta.max) == LAST
    assert after(datetime.max.replace(tzinfo=UTC), timedelta(1)) == datetime.max.replace(tzinfo=UTC)
    assert after(datetime(2030, 1, 1, tzinfo=UTC), timedelta(1)) == datetime(2030, 1, 2, tzinfo=UTC)
