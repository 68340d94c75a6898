"""States and outputs of loops are converted by their body's annotations, wherever these were written; or the loop is
refused.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Union

import pytest
from typing_extensions import TypeAliasType

import pgflow
from pgflow.codec import decode
from pgflow.execution.steps.loop_types import loop_types
from pgflow.testing import run

if TYPE_CHECKING:
    from pgflow import WorkflowContext

    class Nowhere:
        """Known to type checkers alone."""


@dataclass
class State:
    """What a turn hands on to the next."""

    n: int


Next = pgflow.Continue[State] | pgflow.Break[Decimal]
Alias = TypeAliasType("Alias", Next)


async def plain(ctx: WorkflowContext, state: State) -> pgflow.Continue[State] | pgflow.Break[Decimal]:
    return pgflow.Break(Decimal(state.n)) if state.n > 2 else pgflow.Continue(State(state.n + 1))


async def through_an_alias(ctx: WorkflowContext, state: State) -> Alias:
    return await plain(ctx, state)


async def annotated(ctx: WorkflowContext, state: State) -> Annotated[Next, "more"]:
    return await plain(ctx, state)


async def old_union(ctx: WorkflowContext, state: State) -> Union[pgflow.Break[Decimal], pgflow.Continue[State]]:  # noqa: UP007
    return await plain(ctx, state)


def awaited(ctx: WorkflowContext, state: State) -> Awaitable[Next]:
    return plain(ctx, state)


async def with_more(top: int, ctx: WorkflowContext, state: State) -> Next:
    return pgflow.Break(Decimal(state.n)) if state.n > top else pgflow.Continue(State(state.n + 1))


class Body:
    """An object that is called, and one whose method is."""

    async def __call__(self, ctx: WorkflowContext, state: State) -> Next:
        return await plain(ctx, state)

    async def method(self, ctx: WorkflowContext, state: State) -> Next:
        return await plain(ctx, state)

    @staticmethod
    async def static(ctx: WorkflowContext, state: State) -> Next:
        return await plain(ctx, state)


def logged(fn: Any) -> Any:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


BODIES: dict[str, Callable[..., Any]] = {
    "plain": plain,
    "through an alias": through_an_alias,
    "annotated": annotated,
    "old union": old_union,
    "awaited": awaited,
    "partial": functools.partial(with_more, 2),
    "object": Body(),
    "method": Body().method,
    "static": Body.static,
    "wrapped": logged(plain),
}


@pytest.mark.parametrize("body", BODIES)
def test_the_state_arrives_as_its_annotation_says(body: str) -> None:
    @pgflow.workflow
    async def loops(ctx: pgflow.WorkflowContext) -> str:
        found = await ctx.loop(BODIES[body], State(0))
        return f"{type(found).__name__} {found}"

    assert run(loops).output == "Decimal 3"


def test_local_classes() -> None:
    @pgflow.workflow
    async def loops(ctx: pgflow.WorkflowContext) -> int:
        @dataclass
        class Local:
            n: int

        async def turn(ctx: pgflow.WorkflowContext, state: Local) -> pgflow.Continue[Local] | pgflow.Break[int]:
            return pgflow.Break(state.n) if state.n > 2 else pgflow.Continue(Local(state.n + 1))

        return await ctx.loop(turn, Local(0))

    assert run(loops).output == 3


async def lost(ctx: WorkflowContext, state: Nowhere) -> pgflow.Break[int]:
    return pgflow.Break(1)


async def lost_output(ctx: WorkflowContext, state: int) -> pgflow.Continue[int] | pgflow.Break[Nowhere]:
    return pgflow.Break(1)  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [lost, lost_output, functools.partial(lost)])
def test_what_cannot_be_found_is_refused(body: Any) -> None:
    @pgflow.workflow
    async def loops(ctx: pgflow.WorkflowContext) -> None:
        await ctx.loop(body, 0)

    ran = run(loops)
    assert isinstance(ran.error, pgflow.SerializationError) and "Nowhere" in str(ran.error)
    assert ran.history.events == []


async def two_outputs(
    ctx: WorkflowContext, state: int
) -> pgflow.Break[int] | pgflow.Break[Decimal] | pgflow.Continue[int]:
    return pgflow.Break(state)


async def unsaid(ctx: Any, state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return pgflow.Break(state)


async def without_state(ctx: WorkflowContext) -> pgflow.Break[None]:
    return pgflow.Break()


def test_what_is_said_of_outputs() -> None:
    state, value = loop_types(two_outputs)
    assert state is int and decode('"1.50"', value, what="it") == Decimal("1.50") and decode("1", value, what="it") == 1
    assert loop_types(unsaid) == (Any, Any)
    assert loop_types(without_state) == (Any, type(None))
    assert loop_types(dict.fromkeys)[0] is Any


def test_a_state_of_yesterday_is_read_by_its_annotation() -> None:
    """It was stored as plain JSON when its annotation could not be resolved."""
    assert decode('{"n":2}', loop_types(plain)[0], what="it") == State(2)
