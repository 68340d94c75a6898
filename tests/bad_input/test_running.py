"""Mistakes that show only when code runs: each fails its own workflow, or nothing, and is reported to those who wait.
About 5 seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
import pytest_asyncio

import pgflow

LIMIT = 2_000
"""The payload limit of the worker, in bytes."""


@dataclass
class Order:
    number: int


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=0.01))
async def give(ctx: pgflow.ActivityContext, what: str) -> Any:
    return {"object": object(), "nan": float("nan"), "nul": "a\0b", "large": "x" * LIMIT}[what]


@pgflow.activity
async def take(ctx: pgflow.ActivityContext, what: Any) -> None: ...


@pgflow.workflow
async def giving(ctx: pgflow.WorkflowContext, what: str) -> None:
    await ctx.activity(give, what)


@pgflow.workflow
async def passing(ctx: pgflow.WorkflowContext, what: str) -> None:
    values = {"object": object(), "nan": float("nan"), "nul": "a\0b", "large": "x" * LIMIT}
    await ctx.activity(take, values[what])


@pgflow.workflow
async def returning(ctx: pgflow.WorkflowContext, what: str) -> Any:
    return {"object": object(), "nan": float("nan"), "nul": "a\0b", "large": "x" * LIMIT}[what]


@pgflow.workflow
async def ordering(ctx: pgflow.WorkflowContext, order: Order, note: str = "") -> int:
    return order.number


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[pgflow.Client]:
    """A client, beside a worker that works."""
    workflows: list[pgflow.Workflow[Any, Any]] = [giving, passing, returning, ordering]
    async with pgflow.Worker(dsn, workflows=workflows, payload_limit=LIMIT), pgflow.Client(dsn) as client:
        yield client


def told(what: str) -> str:
    """What the message says of each."""
    return {"object": "no JSON form", "nan": "nan", "nul": "NUL", "large": f"expected at most {LIMIT:,}"}[what]


WHAT = pytest.mark.parametrize("what", ["object", "nan", "nul", "large"])


@WHAT
async def test_a_result_that_cannot_be_stored(client: pgflow.Client, what: str) -> None:
    """It is the activity's failure, and trying again would not help."""
    handle = await client.dispatch(giving, what)
    with pytest.raises(pgflow.WorkflowFailed, match=told(what)) as caught:
        await handle.output(30)
    assert caught.value.error_type == "ActivityFailed"
    assert [(event.status, event.attempts) for event in await client.history(handle.id)] == [("failed", 1)]


@WHAT
async def test_an_argument_that_cannot_be_stored(client: pgflow.Client, what: str) -> None:
    """The step is never made."""
    handle = await client.dispatch(passing, what)
    with pytest.raises(pgflow.WorkflowFailed, match=told(what)) as caught:
        await handle.output(30)
    assert caught.value.error_type == "SerializationError"
    assert await client.history(handle.id) == []


@WHAT
async def test_an_output_that_cannot_be_stored(client: pgflow.Client, what: str) -> None:
    handle = await client.dispatch(returning, what)
    with pytest.raises(pgflow.WorkflowFailed, match=told(what)):
        await handle.output(30)
    assert (await handle.info()).output is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "order"),
        ({"order": {"number": 7}, "colour": "red"}, "colour"),
        ({"order": {"number": "seven"}}, "order"),
        ({"order": 7}, "order"),
    ],
)
async def test_arguments_by_name_that_do_not_fit(client: pgflow.Client, given: dict[str, Any], said: str) -> None:
    """Whoever starts a workflow by its name is not checked there, so the worker tells."""
    handle = await client.dispatch("ordering", **given)
    with pytest.raises(pgflow.WorkflowFailed, match=f'workflow "ordering".*{said}'):
        await handle.output(30)
    assert await client.history(handle.id) == []


async def test_an_unknown_name_stays_pending(dsn: str, client: pgflow.Client) -> None:
    """It is not lost, and stands in nobody's way; a worker that knows it takes it."""
    unknown = await client.dispatch("from_tomorrow", number=1)
    for number in range(3):
        assert await (await client.dispatch(ordering, Order(number))).output(30) == number
    assert (await unknown.info()).status == "pending"
    assert await client.history(unknown.id) == []

    @pgflow.workflow
    async def from_tomorrow(ctx: pgflow.WorkflowContext, number: int) -> int:
        return number + 1

    async with pgflow.Worker(dsn, workflows=[from_tomorrow]):
        assert await unknown.output(30) == 2


async def test_the_limit_of_a_client(dsn: str) -> None:
    """1 MiB, unless it says otherwise; in bytes of JSON."""
    with psycopg.connect(dsn, autocommit=True) as connection:

        def count() -> Any:
            return connection.execute("SELECT count(*) FROM pgflow.workflows").fetchone()

        async with pgflow.Client(dsn) as client:
            with pytest.raises(pgflow.SerializationError, match="expected at most 1,048,576.*payload_limit"):
                await client.dispatch("anything", what="x" * (1 << 20))
            assert count() == (0,)
            await client.dispatch("anything", what="x" * ((1 << 20) - 100))
        async with pgflow.Client(dsn, payload_limit=100) as client:
            with pytest.raises(pgflow.SerializationError, match="expected at most 100"):
                await client.dispatch("anything", what="ä" * 50)
            assert count() == (1,)
        async with pgflow.Client(dsn, payload_limit=4 << 20) as client:
            await client.dispatch("anything", what="x" * (2 << 20))
            assert count() == (2,)
