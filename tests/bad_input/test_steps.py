"""Steps with impossible arguments: refused where the code calls them, and nothing is recorded. About 1 second."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import pgflow
from pgflow.client.filters import location_of
from pgflow.history import location
from pgflow.testing import run


@pgflow.signal
@dataclass
class Approved:
    by: str


Namesake: type[Any] = pgflow.signal(name="approved")(dataclass(type("Namesake", (), {"__annotations__": {"by": str}})))


@dataclass
class Undeclared:
    by: str


@pgflow.workflow
async def other(ctx: pgflow.WorkflowContext) -> None: ...


async def turn(ctx: pgflow.WorkflowContext, n: int) -> pgflow.Break[int]:
    return pgflow.Break(n)


CALLS: list[tuple[str, Callable[[Any], Any]]] = [
    (r"ctx\.sleep: .*ends within the year 9999", lambda ctx: ctx.sleep(1e12)),
    (r"ctx\.sleep.*year 9999", lambda ctx: ctx.sleep(1e300)),
    (r"ctx\.sleep\(nan\)", lambda ctx: ctx.sleep(math.nan)),
    (r"ctx\.sleep.*year 9999", lambda ctx: ctx.sleep(math.inf)),
    (r"ctx\.sleep.*not negative", lambda ctx: ctx.sleep(-1)),
    (r"ctx\.sleep\('60'\)", lambda ctx: ctx.sleep("60")),
    (r"ctx\.sleep\(True\)", lambda ctx: ctx.sleep(True)),
    (r"ctx\.sleep\(None\)", lambda ctx: ctx.sleep(None)),
    (r"ctx\.timeout.*year 9999", lambda ctx: ctx.timeout(1e12)),
    (r"ctx\.timeout.*not negative", lambda ctx: ctx.timeout(timedelta(seconds=-1))),
    (r"ctx\.listen.*year 9999", lambda ctx: ctx.listen(Approved, timeout=1e12)),
    ("time zone", lambda ctx: ctx.sleep_until(datetime(2030, 1, 1))),
    ("time zone", lambda ctx: ctx.sleep_until(60)),
    ("out of the range", lambda ctx: ctx.sleep_until(datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))))),
    (r"ctx\.v\(1\.5\): expected a whole number", lambda ctx: ctx.v(1.5)),
    (r"ctx\.v\(0\).*versions count from 1", lambda ctx: ctx.v(0)),
    (r"ctx\.v\(True\)", lambda ctx: ctx.v(True)),
    (r"ctx\.v\('2'\)", lambda ctx: ctx.v("2")),
    (r"ctx\.v\(2147483648\)", lambda ctx: ctx.v(2**31)),
    (r"ctx\.check_version\(0\)", lambda ctx: ctx.check_version(0)),
    (r"ctx\.check_version\(1\.5\)", lambda ctx: ctx.check_version(1.5)),
    (r"ctx\.check_version\(True\)", lambda ctx: ctx.check_version(True)),
    (r"ctx\.removed\('nonsense'\): expected the kind.*activity, branch.*sleep", lambda ctx: ctx.removed("nonsense")),
    (r"ctx\.removed\('version_check'\)", lambda ctx: ctx.removed("version_check")),
    (r"ctx\.removed\(\['activity'\]\)", lambda ctx: ctx.removed(["activity"])),
    (r"ctx\.removed\('activity'\): expected the name", lambda ctx: ctx.removed("activity")),
    (r"ctx\.removed\('activity', .*expected the step's name", lambda ctx: ctx.removed("activity", other)),
    ("commit_interval=0", lambda ctx: ctx.loop(turn, 0, commit_interval=0)),
    ("commit_interval=1.5", lambda ctx: ctx.loop(turn, 0, commit_interval=1.5)),
    ("commit_interval=True", lambda ctx: ctx.loop(turn, 0, commit_interval=True)),
    ("keep_iterations=-1", lambda ctx: ctx.loop(turn, 0, keep_iterations=-1)),
    ("keep_iterations=2147483648", lambda ctx: ctx.loop(turn, 0, keep_iterations=2**31)),
    ("expected a function of a context, found 7", lambda ctx: ctx.loop(7)),
    ("expected a function of a context, found None", lambda ctx: ctx.branch(None)),
    ("expected a function of a context, found 7", lambda ctx: ctx.join(7)),
    ("at least one signal class", lambda ctx: ctx.listen()),
    ("at least one signal class", lambda ctx: ctx.listen_many()),
    (r"Approved and .*Namesake are both called \"approved\"", lambda ctx: ctx.listen(Approved, Namesake)),
    ("both called", lambda ctx: ctx.listen_many(Namesake, Approved)),
    ("expected a class declared by @pgflow.signal", lambda ctx: ctx.listen(Undeclared)),
    ("expected a class declared by @pgflow.signal", lambda ctx: ctx.listen(Approved("eva"))),
    ("limit=0", lambda ctx: ctx.listen_many(Approved, limit=0)),
    ("limit=1.5", lambda ctx: ctx.listen_many(Approved, limit=1.5)),
    ("neither", lambda ctx: ctx.signal(Approved("eva"))),
    ("expected a UUID", lambda ctx: ctx.signal(Approved("eva"), to="me")),
    ("not flat", lambda ctx: ctx.signal(Approved("eva"), workflow=other, tags={"a": []})),
    ("declared by @pgflow.message", lambda ctx: ctx.publish(Approved("eva"))),
    ("priority=2147483648", lambda ctx: ctx.dispatch(other, priority=2**31)),
    ("priority=True", lambda ctx: ctx.dispatch(other, priority=True)),
    ("queue=''", lambda ctx: ctx.dispatch(other, queue="")),
    ("queue='q", lambda ctx: ctx.dispatch(other, queue="q" * 201)),
    ("workflow name ''", lambda ctx: ctx.dispatch("")),
    ("arguments by name", lambda ctx: ctx.dispatch("other", 1)),
    ("time zone", lambda ctx: ctx.dispatch(other, run_at=datetime(2030, 1, 1))),
]


@pytest.mark.parametrize(("said", "call"), CALLS, ids=[f"{number}" for number in range(len(CALLS))])
def test_refused_where_it_is_called(said: str, call: Callable[[Any], Any]) -> None:
    """Not where it is awaited, which may be elsewhere; and the workflow goes on at the same location."""

    @pgflow.workflow
    async def caller(ctx: pgflow.WorkflowContext) -> str:
        with pytest.raises((TypeError, ValueError, pgflow.SerializationError), match=said):
            call(ctx)
        await ctx.sleep(1)
        return "went on"

    ran = run(caller)
    assert ran.output == "went on" and [event.location for event in ran.history.events] == ["1"]


def test_what_is_far_but_not_too_far() -> None:
    @pgflow.workflow
    async def patient(ctx: pgflow.WorkflowContext) -> int:
        await ctx.sleep(timedelta(days=365 * 5000))
        await ctx.sleep_until(datetime(9000, 1, 1, tzinfo=UTC))
        await ctx.listen(Approved, Approved, timeout=1)
        return ctx.now().year

    assert run(patient).output == 9000


@pytest.mark.parametrize(
    "text",
    ["{-1}", "{1, -2}", "{1.-1}", "-1", "{+1}", "{1_0}", "{ }", "{}", "", "{1", "1}", "{1}}", "{{1}", "{1,}", "{1..2}",
     "{one}", "{1.5.}", "{" + "9" * 5000 + "}", "{١}", "a10b", "10", "{1} ", None, 1, 1.5, ["{1}"]],
)  # fmt: skip
def test_places_that_are_none(text: Any) -> None:
    if text == "{1} ":
        assert location_of(text) == "1"
        return
    with pytest.raises(ValueError, match="is no location: expected one as displayed"):
        location_of(text)


def test_places_that_are() -> None:
    for displayed, stored in (("{1}", "1"), ("{ 2 , 10.1 }", "2,a10.1"), ("2,a10", "2,a10"), ("{1.0.1}", "1.0.1")):
        assert location_of(displayed) == stored
        assert location_of(location.display(stored)) == stored


async def test_a_fork_from_a_place_that_is_none(dsn: str) -> None:
    async with pgflow.Client(dsn) as client:
        handle = await client.dispatch(other)
        for asked, said in (
            ({"before": "{-1}"}, "is no location"),
            ({"before": "{1}", "queue": ""}, "queue=''"),
            ({"before": "{1}", "queue": "q" * 201}, "queue="),
        ):
            with pytest.raises(ValueError, match=said):
                await client.fork(handle.id, **asked)
        with pytest.raises(pgflow.WorkflowNotFound, match=r"has no step at \{1\}"):
            await client.fork(handle.id, before="{1}")
        assert len(await client.list()) == 1


@pytest.mark.parametrize("queues", [[], [""], ["q" * 201], ["a\0"], [7], [None]])
def test_queues_that_are_none(queues: Any) -> None:
    with pytest.raises(ValueError, match="queue"):
        pgflow.Worker("host=/nowhere", workflows=[other], queues=queues)


def test_a_module_of_its_own_for_each_namesake() -> None:
    """Two classes of one name are told apart by where they stand."""
    module = types.ModuleType("elsewhere")
    twin: Any = pgflow.signal(
        dataclass(type("Approved", (), {"__annotations__": {"by": str}, "__module__": module.__name__}))
    )

    @pgflow.workflow
    async def caller(ctx: pgflow.WorkflowContext) -> None:
        await ctx.listen(Approved, twin)

    with pytest.raises(TypeError, match=r"test_steps\.Approved and elsewhere\.Approved are both called"):
        print(run(caller).output)
