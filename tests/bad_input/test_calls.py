"""Steps that are called without going through the context, and contexts that are none: refused, and nothing is
executed.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest.mock import MagicMock
from uuid import UUID

import pytest

import pgflow
from pgflow.testing import replay, run

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> Iterator[None]:
    """No test here may execute the activity, or the child."""
    done.clear()
    yield
    assert done == []


@pgflow.activity
async def charge(ctx: pgflow.ActivityContext, cents: int) -> int:
    done.append("charge")
    return cents


@pgflow.activity
def stamp(ctx: pgflow.ActivityContext, cents: int) -> int:
    done.append("stamp")
    return cents


@pgflow.workflow
async def other(ctx: pgflow.WorkflowContext) -> int:
    done.append("other")
    return 1


async def undecorated(ctx: Any) -> int:
    done.append("undecorated")
    return 1


def noted(fn: Any) -> Any:
    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


Body = Callable[[Any], Awaitable[Any]]
CALLS: list[tuple[str, str, Body]] = [
    ("an activity as a function", r"await ctx\.activity\(charge", lambda ctx: charge(ctx, 100)),
    ("a plain one", r"await ctx\.activity\(stamp", lambda ctx: stamp(ctx, 100)),
    ("an activity inline", r"ctx\.inline.*await ctx\.activity\(charge", lambda ctx: ctx.inline(charge, 100)),
    ("an activity as a child", r"await ctx\.activity\(charge", lambda ctx: ctx.dispatch(charge, 100)),
    ("an activity as a branch", r"await ctx\.activity\(charge", lambda ctx: ctx.branch(charge)),
    ("an activity joined", r"await ctx\.activity\(charge", lambda ctx: ctx.join(charge)),
    ("an activity as a loop", r"await ctx\.activity\(charge", lambda ctx: ctx.loop(charge)),
    (
        "a workflow as a function",
        r"ctx\.inline\(other.*ctx\.dispatch\(other.*pgflow\.testing\.run",
        lambda ctx: other(ctx),  # type: ignore[operator]  # refused
    ),
    ("a workflow as an activity", r"ctx\.inline\(other.*ctx\.dispatch\(other", lambda ctx: ctx.activity(other)),
    ("a workflow as a branch", r"ctx\.inline\(other", lambda ctx: ctx.branch(other)),
    ("no decorator", r"put @pgflow\.activity on the function", lambda ctx: ctx.activity(undecorated)),
    ("no decorator, inline", r"put @pgflow\.workflow on the function", lambda ctx: ctx.inline(undecorated)),
    (
        "a partial of one",
        "is below another decorator",
        lambda ctx: ctx.activity(functools.partial(charge, cents=1)),
    ),
    ("a decorator above", "put it on top", lambda ctx: ctx.activity(noted(charge), 100)),
    ("a name", r"@pgflow\.activity", lambda ctx: ctx.activity("charge", 100)),
    ("the context left out", r"ctx\.activity\(charge", lambda ctx: charge(100)),  # type: ignore[arg-type, call-arg]  # refused
    ("None for a context", "None in place of its ActivityContext", lambda ctx: charge(None, 100)),  # type: ignore[arg-type]  # refused
]


@pytest.mark.parametrize(("said", "call"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS])
def test_a_workflow_that_calls_past_its_context(said: str, call: Body) -> None:
    @pgflow.workflow
    async def caller(ctx: pgflow.WorkflowContext) -> Any:
        return await call(ctx)

    ran = run(caller)
    with pytest.raises(TypeError, match=said):
        print(ran.output)
    assert [event.kind for event in ran.history.events] == [], "nothing is recorded"


def test_activities_where_workflows_belong() -> None:
    uses: list[Callable[[], object]] = [
        lambda: run(charge, 100),  # type: ignore[arg-type]
        lambda: pgflow.Worker("host=/nowhere", workflows=[charge]),  # type: ignore[list-item]
        lambda: replay(charge, "{}"),  # type: ignore[arg-type]
    ]
    for use in uses:
        with pytest.raises(TypeError, match=r"expected workflows.*await ctx\.activity\(charge"):
            use()
    with pytest.raises(TypeError, match="expected workflows.*put @pgflow.workflow on the function"):
        run(undecorated)  # type: ignore[arg-type]


async def test_unit_tests_call_functions_themselves() -> None:
    """With an activity's context, a mock of one, or by `__wrapped__` with whatever the function needs; so do other
    activities.
    """
    context = pgflow.ActivityContext("1", UUID(int=1), "charge", 1)
    assert await charge(context, 100) == 100 and stamp(context, cents=5) == 5
    assert await charge(MagicMock(spec=pgflow.ActivityContext), 7) == 7
    assert await charge.__wrapped__(None, 8) == 8  # type: ignore[attr-defined]
    assert await other.__wrapped__(None) == 1  # type: ignore[attr-defined]

    @pgflow.activity
    async def twice(ctx: pgflow.ActivityContext, cents: int) -> int:
        total: int = await charge(ctx, cents) + stamp(ctx, cents)
        return total

    @pgflow.workflow
    async def caller(ctx: pgflow.WorkflowContext) -> int:
        return await ctx.activity(twice, 4)

    ran = run(caller)
    assert ran.output == 8 and len(ran.history.events) == 1, "all of it is one step"
    done.clear()


class Gateway:
    async def charge(self, ctx: pgflow.ActivityContext, cents: int) -> int:
        return cents + 1

    async def bare(self) -> None: ...

    async def unnamed(this: Any, ctx: pgflow.ActivityContext, cents: int) -> int:
        return cents

    @classmethod
    async def of_the_class(cls, ctx: pgflow.ActivityContext) -> None: ...

    @staticmethod
    @pgflow.activity
    async def static(ctx: pgflow.ActivityContext, cents: int) -> int:
        return cents + 2


class Callable_:
    async def __call__(self, ctx: pgflow.ActivityContext) -> None: ...


async def numbers(ctx: Any) -> AsyncIterator[int]:
    yield 1


def more_numbers(ctx: Any) -> Iterator[int]:
    yield 1


def plainly(fn: Any) -> Any:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


def hiding(*args: Any, **kwargs: Any) -> None: ...


async def wrong_context(ctx: pgflow.WorkflowContext) -> None: ...


async def no_context(a: int, b: int) -> None: ...


async def context_second(order: dict[str, int], ctx: pgflow.ActivityContext) -> None: ...


async def context_of_an_activity(ctx: pgflow.ActivityContext) -> None: ...


DECLARED: list[tuple[str, str, Callable[[], Any]]] = [
    ("a method without a context", "expected a first parameter for the context", lambda: pgflow.activity(Gateway.bare)),  # type: ignore[arg-type]  # refused
    ("a method as a workflow", "found the method.*There is no object", lambda: pgflow.workflow(Gateway.charge)),  # type: ignore[arg-type]  # refused
    ("a class method", "staticmethod|class method", lambda: pgflow.activity(Gateway.__dict__["of_the_class"])),
    ("a static method", "Put @staticmethod above @pgflow.activity", lambda: pgflow.activity(staticmethod(undecorated))),
    ("a class", r"expected a function, found a class\. Decorate a function", lambda: pgflow.activity(Gateway)),  # type: ignore[arg-type]  # refused
    ("an object", "expected a function, found a Callable_.*Write a `def`", lambda: pgflow.activity(Callable_())),
    ("a partial", "found a partial.*Write a `def`", lambda: pgflow.activity(functools.partial(undecorated))),
    (
        "a partial as a workflow",
        "found a partial.*Write a `def`",
        lambda: pgflow.workflow(functools.partial(undecorated)),
    ),
    ("a lambda", "a lambda has no name", lambda: pgflow.activity(lambda ctx: 1)),
    ("an async generator", "found an async generator", lambda: pgflow.activity(numbers)),
    ("an async generator as a workflow", "found an async generator", lambda: pgflow.workflow(numbers)),  # type: ignore[arg-type]  # refused
    ("a generator", "found a generator", lambda: pgflow.activity(more_numbers)),
    ("a generator behind a decorator", "found a generator", lambda: pgflow.activity(plainly(more_numbers))),
    (
        "a decorator that hides",
        "A decorator beneath hides its parameters: let it use functools.wraps",
        lambda: pgflow.activity(hiding),
    ),
    (
        "the wrong context",
        "found that of a workflow.*decorate it with @pgflow.workflow",
        lambda: pgflow.activity(wrong_context),  # type: ignore[arg-type]  # refused
    ),
    ("the wrong context of a workflow", "found that of an activity", lambda: pgflow.workflow(context_of_an_activity)),  # type: ignore[arg-type]  # refused
    ("no context", r"found no_context\(a: 'int', b: 'int'\).*Add it in front", lambda: pgflow.activity(no_context)),  # type: ignore[arg-type]  # refused
    ("the context second", "Put the context first", lambda: pgflow.activity(context_second)),
    ("twice", 'decorated already, as the activity "charge"', lambda: pgflow.activity(charge)),
    ("a workflow as an activity", 'decorated already, as the workflow "other"', lambda: pgflow.activity(other)),  # type: ignore[call-overload]  # refused
    (
        "below another decorator",
        'decorated already, as the activity "charge"',
        lambda: pgflow.activity(noted(charge)),
    ),
]


@pytest.mark.parametrize(("said", "declare"), [case[1:] for case in DECLARED], ids=[case[0] for case in DECLARED])
def test_what_cannot_be_declared(said: str, declare: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=said):
        declare()


def test_what_can() -> None:
    bound = pgflow.activity(Gateway().charge)
    unannotated = pgflow.activity(name="inline")(lambda ctx, cents: cents * 10)

    @pgflow.workflow
    async def caller(ctx: pgflow.WorkflowContext) -> list[int]:
        return [await ctx.activity(step, 1) for step in (bound, Gateway.static, unannotated)]

    assert run(caller).output == [2, 3, 10]
