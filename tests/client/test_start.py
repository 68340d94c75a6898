"""`start` and `workflow.options`: every argument is the workflow's, whatever its parameters are called. About 5
seconds.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import pytest_asyncio

import pgflow
from pgflow.testing import run

GIVEN: dict[str, Any] = {
    "id": 7, "queue": "orders", "tags": ["a"], "priority": "low", "connection": "fast", "unique": "very",
    "run_at": "noon",
    "workflow": "w", "self": "s", "fn": "f", "args": [1], "kwargs": {"k": 1}, "detached": "d",
}  # fmt: skip
"""Arguments called like everything that pgflow's own functions are given."""


@pgflow.workflow
async def poll(
    ctx: pgflow.WorkflowContext, id: int, queue: str, tags: list[str], priority: str, connection: str, unique: str,
    run_at: str,
    workflow: str, self: str, fn: str, args: list[int], kwargs: dict[str, int], detached: str,
) -> dict[str, Any]:  # fmt: skip
    """Returns what it was given."""
    found = dict(locals())
    del found["ctx"]
    return found


@pgflow.activity
async def poll_once(
    ctx: pgflow.ActivityContext,
    self: str,
    fn: str,
    timeout: int,
    retry: str,
    name: str,
    args: list[int],
    activity: str,
    version: int,
) -> list[Any]:
    return [self, fn, timeout, retry, name, args, activity, version]


@pgflow.workflow
async def around(ctx: pgflow.WorkflowContext, how: str) -> Any:
    if how == "activity":
        return await ctx.activity(
            poll_once, self="s", fn="f", timeout=3, retry="r", name="n", args=[1], activity="a", version=4
        )
    if how == "inline":
        return await ctx.inline(poll, **GIVEN)
    child = await ctx.start(poll.options(tags={"customer": 7}, priority=3), **GIVEN)
    return [await child.output(), str(child.id)]


@pgflow.workflow
async def job(ctx: pgflow.WorkflowContext, n: int, queue: str = "orders", *, tags: str = "none") -> list[Any]:
    return [n, queue, tags]


@pgflow.workflow
async def plain(ctx: pgflow.WorkflowContext, n: int = 0) -> int:
    return n


@pytest_asyncio.fixture
async def client(dsn: str) -> AsyncIterator[pgflow.Client]:
    """A client, beside a worker of two queues."""
    worker = pgflow.Worker(dsn, workflows=[poll, around, job, plain], queues=["default", "slow"])
    async with worker, pgflow.Client(dsn) as client:
        yield client


async def test_all_arguments_are_the_workflows(client: pgflow.Client, dsn: str) -> None:
    chosen = poll.options(tags={"customer": 7}, id=uuid.uuid4(), queue="slow", priority=2)
    handle = await client.start(chosen, **GIVEN)
    assert await handle.output(30) == GIVEN
    info = await handle.info()
    assert (info.id, info.tags, info.input) == (chosen.chosen["id"], {"customer": 7}, GIVEN)
    assert await (await client.start("poll", **GIVEN)).output(30) == GIVEN, "by its name too"
    assert [await one.output(30) for one in await client.dispatch_many(poll, [GIVEN], tags={"many": 1})] == [GIVEN]

    def synchronously() -> Any:
        with pgflow.SyncClient(dsn) as synchronous:
            return synchronous.start(poll.options(tags={"sync": True}), **GIVEN).output(30)

    assert await asyncio.to_thread(synchronously) == GIVEN


async def test_activities_inline_workflows_and_children(client: pgflow.Client) -> None:
    assert await (await client.start(around, "activity")).output(30) == ["s", "f", 3, "r", "n", [1], "a", 4]
    assert await (await client.start(around, "inline")).output(30) == GIVEN
    output, id = await (await client.start(around, "child")).output(30)
    info = await client.get(id)
    assert output == GIVEN and info.tags == {"customer": 7} and info.name == "poll"


@pytest.mark.parametrize("option", ["id", "tags", "unique", "run_at", "priority", "queue", "connection"])
async def test_an_option_that_may_be_meant_for_the_workflow_is_refused(client: pgflow.Client, option: str) -> None:
    """It would silently go astray: here to a queue that nobody serves, there to nobody at all."""
    given: Any = {**GIVEN, **{name: None for name in ("id", "tags", "run_at", "connection")}}
    said = (
        rf'client\.dispatch\({option}=.*the workflow "poll" has a parameter "{option}".*client\.start\(poll\.options\('
    )
    with pytest.raises(TypeError, match=said):
        await client.dispatch(poll, **{option: given[option]})
    assert await client.list() == []


async def test_it_is_no_matter_where_the_argument_is_given_by_position(client: pgflow.Client) -> None:
    handle = await client.dispatch(job, 1, "mine", queue="slow")
    assert await handle.output(30) == [1, "mine", "none"]
    with pytest.raises(TypeError, match=r'"job" has a parameter "tags"'):
        await client.dispatch(job, 1, "mine", tags={"customer": 7})
    assert await (await client.start(job.options(tags={"customer": 7}), 1, tags="t")).output(30) == [1, "orders", "t"]


async def test_children_likewise(client: pgflow.Client, dsn: str) -> None:
    @pgflow.workflow
    async def parent(ctx: pgflow.WorkflowContext) -> list[Any]:
        found: list[Any] = []
        for call in (
            lambda: ctx.dispatch(job, 1, queue="slow"),
            lambda: ctx.dispatch(job.options(queue="slow"), 1, queue="orders"),
            lambda: ctx.dispatch(job.options(id=uuid.UUID(int=1)), 1),
            lambda: ctx.start(job.options(connection=object()), 1),
            lambda: ctx.inline(job.options(queue="slow"), 1),
        ):
            try:
                await call()
            except TypeError as error:
                found.append(str(error))
        child = await ctx.dispatch(plain.options(queue="slow", tags={"n": 1}), 3, tags={"n": 2})
        return [*found, await child.output(), str(child.id)]

    async with pgflow.Worker(dsn, workflows=[parent]):
        *said, output, id = await (await client.dispatch(parent)).output(30)
    assert output == 3 and (await client.get(id)).tags == {"n": 2}, "what is given at the start goes first"
    assert all("ctx.start(job.options(...), ...)" in text for text in said[:2])
    assert ["have no meaning here" in text for text in said] == [False, False, True, True, True]


async def test_options_do_what_dispatchs_keywords_do(client: pgflow.Client, dsn: str) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    first = await client.start(plain.options(unique=True, tags={"key": 1}, run_at=later, queue="slow", priority=9), 1)
    again = await client.dispatch(plain.options(unique=True, tags={"key": 1}), 2)
    assert first.id == again.id
    info = await first.info()
    assert (info.queue, info.priority, info.wake_at, info.tags) == ("slow", 9, later, {"key": 1})
    both = plain.options(queue="slow").options(tags={"key": 2}).options(name="renamed")
    assert (both.name, both.chosen) == ("renamed", {"queue": "slow", "tags": {"key": 2}})
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rolled_back = await client.start(plain.options(connection=connection), 1)
        await connection.rollback()
    with pytest.raises(pgflow.WorkflowNotFound):
        await client.get(rolled_back.id)
    many = await client.dispatch_many(
        plain.options(queue="slow", tags={"key": 3}, run_at=later), [{"n": 1}], priority=4
    )
    info = await many[0].info()
    assert (info.queue, info.tags, info.priority) == ("slow", {"key": 3}, 4)


async def test_options_without_a_meaning(client: pgflow.Client) -> None:
    with pytest.raises(TypeError, match=r"options\(detached=...\), which have no meaning here: only a child"):
        await client.start(plain.options(detached=True))
    for chosen in (plain.options(unique=True), plain.options(id=uuid.uuid4())):
        with pytest.raises(TypeError, match="client.dispatch_many.*have no meaning here"):
            await client.dispatch_many(chosen, [{}])
    assert await client.list() == []


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
        ({"queue": ""}, "queue=''"),
        ({"queue": "q" * 201}, "queue="),
        ({"queue": None}, "queue=None"),
        ({"priority": 2**31}, "priority="),
        ({"priority": True}, "priority=True"),
        ({"priority": 1.5}, "priority=1.5"),
        ({"run_at": datetime(2030, 1, 1)}, "time zone"),
        ({"run_at": 60}, "run_at=60"),
        ({"tags": {"a": {}}}, "not flat"),
        ({"id": "seven"}, "id='seven'"),
        ({"name": ""}, "name of a workflow"),
    ],
)
def test_options_out_of_range(option: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        plain.options(**option)


def test_a_unit_test_gives_them_as_well() -> None:
    @pgflow.workflow
    async def limited(ctx: pgflow.WorkflowContext, limit: int, tags: str = "", arguments: str = "") -> list[Any]:
        return [limit, tags, arguments, ctx.tags]

    with pytest.raises(
        TypeError, match=r'run\(limit=...\): the workflow "limited" has a parameter "limit".*arguments='
    ):
        run(limited, limit=1)
    assert run(limited.options(tags={"a": 1}), arguments={"limit": 3, "tags": "mine", "arguments": "x"}).output == [
        3,
        "mine",
        "x",
        {"a": 1},
    ]
    assert run(poll, arguments=GIVEN).output == GIVEN
    with pytest.raises(TypeError, match=r'"limited" has a parameter "arguments"'):
        run(limited, 1, arguments={"tags": "mine"})
