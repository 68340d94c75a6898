"""`ctx.state` and `ctx.update_tags`: kept with the workflow in the transaction of the activity's result. About 5
seconds.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from tests.store.scene import Scene
from tests.waiting import until

ONCE = pgflow.RetryPolicy(max_attempts=1)


@pgflow.signal
@dataclass
class Go:
    pass


@pgflow.activity
async def count(ctx: pgflow.ActivityContext, key: str) -> int:
    ctx.state[key] = ctx.state.get(key, 0) + 1
    return int(ctx.state[key])


@pgflow.activity
def look(ctx: pgflow.ActivityContext) -> dict[str, Any]:
    return ctx.state


@pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=2, initial=0.01))
async def second_time(ctx: pgflow.ActivityContext) -> dict[str, Any]:
    found = dict(ctx.state)
    ctx.state[f"attempt {ctx.attempt}"] = True
    ctx.update_tags({f"attempt {ctx.attempt}": True})
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return found


@pgflow.activity
def alter(ctx: pgflow.ActivityContext) -> None:
    """Values changed in place, set again, deleted, and left alone."""
    ctx.state["list"].append(2)
    ctx.state["number"] += 1
    del ctx.state["gone"]


@pgflow.activity
def fill(ctx: pgflow.ActivityContext) -> None:
    ctx.state.update({"list": [1], "number": 1, "gone": {"a": None}, "left": "ä"})


@pgflow.activity
async def meet(ctx: pgflow.ActivityContext, key: str, remove: str, own: str) -> None:
    """Ends when the other one has begun, so that neither sees what the other did."""
    arrived[ctx.workflow_id, own].set()
    del ctx.state[remove]
    ctx.state[key] = ctx.state.get(key, 0) + 1
    await arrived[ctx.workflow_id, "b" if own == "a" else "a"].wait()


@pgflow.activity(retry=ONCE)
def keep(ctx: pgflow.ActivityContext, what: str) -> None:
    values: dict[str, Any] = {"nan": float("nan"), "object": object(), "large": "x" * 2_000_000}
    if what == "key":
        ctx.state[7] = "x"  # type: ignore[index]
    elif what == "nested tag":
        ctx.update_tags({"a": {"b": 1}})
    elif what == "large tags":
        ctx.update_tags({"a": "x" * 20_000})
    else:
        ctx.state["kept"] = values[what]


@pgflow.activity
def tag(ctx: pgflow.ActivityContext, tags: dict[str, Any]) -> None:
    ctx.update_tags(tags)


arrived: dict[Any, asyncio.Event] = {}


@pgflow.workflow
async def counting(ctx: pgflow.WorkflowContext) -> list[int]:
    found = [await ctx.activity(count, "one") for _ in range(3)]
    await ctx.listen(Go)
    return [*found, await ctx.activity(count, "one"), await ctx.activity(count, "other")]


@pgflow.workflow
async def failing_first(ctx: pgflow.WorkflowContext) -> dict[str, Any]:
    return await ctx.activity(second_time)


@pgflow.workflow
async def altering(ctx: pgflow.WorkflowContext) -> dict[str, Any]:
    await ctx.activity(fill)
    await ctx.activity(alter)
    return await ctx.activity(look)


@pgflow.workflow
async def meeting(ctx: pgflow.WorkflowContext) -> dict[str, Any]:
    await ctx.activity(fill)
    for own in "ab":
        arrived[ctx.id, own] = asyncio.Event()
    await asyncio.gather(ctx.activity(meet, "one", "gone", "a"), ctx.activity(meet, "other", "left", "b"))
    return await ctx.activity(look)


@pgflow.workflow
async def keeping(ctx: pgflow.WorkflowContext, what: str) -> str:
    try:
        await ctx.activity(keep, what)
    except pgflow.ActivityFailed as error:
        return f"{error.error_type}: {error.error_message}"
    return "kept"


@pgflow.workflow
async def tagging(ctx: pgflow.WorkflowContext) -> list[dict[str, Any]]:
    first = ctx.tags
    await ctx.activity(tag, {"stage": "packed", "weight": 3})
    await ctx.activity(tag, {"stage": "shipped", "note": None})
    await ctx.listen(Go)
    return [first, ctx.tags]


FLOWS: list[pgflow.Workflow[Any, Any]] = [counting, failing_first, altering, meeting, keeping, tagging]


def worker(scene: Scene, **settings: Any) -> pgflow.Worker:
    return pgflow.Worker(scene.database.dsn, workflows=FLOWS, **settings)


def state_of(scene: Scene, handle: pgflow.WorkflowHandle[Any]) -> Any:
    return scene.one("SELECT state FROM workflows WHERE id = %s", handle.id)


@pytest.mark.parametrize("cached", [0, 10])
async def test_kept_from_activity_to_activity_and_over_a_sleep(
    scene: Scene, client: pgflow.Client, cached: int
) -> None:
    """In memory or read again after the workflow has left it."""
    async with worker(scene, cached=cached):
        handle = await client.dispatch(counting)
        await until(lambda: scene.one("SELECT status FROM runs") == "sleeping", "sleep")
        assert state_of(scene, handle) == {"one": 3}
        await client.signal(Go(), to=handle.id)
        assert await handle.output(20) == [1, 2, 3, 4, 1]
    assert state_of(scene, handle) == {"one": 4, "other": 1}


async def test_in_the_transaction_of_the_result(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(counting)
        await until(lambda: scene.one("SELECT status FROM runs") == "sleeping", "sleep")
        last = "SELECT xmin::text FROM events WHERE workflow_id = %s AND location = '3'"
        assert scene.one("SELECT xmin::text FROM workflows WHERE id = %s", handle.id) == scene.one(last, handle.id)
        await client.signal(Go(), to=handle.id)
        await handle.output(20)


async def test_changes_of_a_failed_attempt_are_dropped(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(failing_first)
        assert await handle.output(20) == {}
    assert state_of(scene, handle) == {"attempt 2": True}
    assert (await handle.info()).tags == {"attempt 2": True}


async def test_values_changed_in_place_and_deleted(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(altering)
        assert await handle.output(20) == {"list": [1, 2], "number": 2, "left": "ä"}
    assert state_of(scene, handle) == {"list": [1, 2], "number": 2, "left": "ä"}


async def test_merged_key_by_key(scene: Scene, client: pgflow.Client) -> None:
    """Of two activities that run at once, each sets a key and deletes a key; neither undoes what the other did."""
    async with worker(scene):
        handle = await client.dispatch(meeting)
        assert await handle.output(20) == {"list": [1], "number": 1, "one": 1, "other": 1}


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("nan", 'SerializationError: ctx.state["kept"] cannot be stored: found nan'),
        ("object", 'SerializationError: ctx.state["kept"]'),
        (
            "large",
            "SerializationError: the workflow's state would be 2,000,011 bytes of JSON; expected at most 1,048,576",
        ),
        ("key", "SerializationError: ctx.state has the key 7; expected texts as keys"),
        ("nested tag", "ValueError: tags: 'a': {'b': 1} is not flat"),
        ("large tags", "SerializationError: tags are 20,008 bytes of JSON; expected at most 16,384"),
    ],
)
async def test_what_cannot_be_kept_fails_the_activity(
    scene: Scene, client: pgflow.Client, what: str, told: str
) -> None:
    async with worker(scene):
        handle = await client.dispatch(keeping, what)
        assert (await handle.output(20)).startswith(told)
    assert state_of(scene, handle) is None
    assert (await handle.info()).tags == {}


@pytest.mark.parametrize("cached", [0, 10])
async def test_tags_are_found_and_the_code_sees_those_of_its_dispatch(
    scene: Scene, client: pgflow.Client, cached: int
) -> None:
    given = {"order": 7, "stage": "new"}
    async with worker(scene, cached=cached):
        handle = await client.dispatch(tagging, tags=given)
        await until(lambda: scene.one("SELECT status FROM runs") == "sleeping", "sleep")
        now = {"order": 7, "stage": "shipped", "weight": 3, "note": None}
        assert (await handle.info()).tags == now
        assert [info.id for info in await client.list(tags={"stage": "shipped"})] == [handle.id]
        with pytest.raises(pgflow.WorkflowNotFound):
            await client.signal(Go(), workflow=tagging, tags={"stage": "new"})
        await client.signal(Go(), workflow=tagging, tags={"stage": "shipped"})
        assert await handle.output(20) == [given, given]
    assert (await handle.info()).tags == now


async def test_the_unique_key_is_that_of_the_dispatch(scene: Scene, client: pgflow.Client) -> None:
    async with worker(scene):
        handle = await client.dispatch(tagging, tags={"order": 7}, unique=True)
        await until(lambda: scene.one("SELECT status FROM runs") == "sleeping", "sleep")
        now = (await handle.info()).tags
        assert now != {"order": 7}
        assert (await client.dispatch(tagging, tags={"order": 7}, unique=True)).id == handle.id
        assert (await client.dispatch(tagging, tags=now, unique=True)).id != handle.id
