"""Wherever a value enters a history it is checked, and its size is limited."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

import pgflow
from pgflow.codec import decode, encode
from pgflow.errors import SerializationError
from pgflow.testing import run
from tests.codec.values import ID, Doubled


@pgflow.signal
@dataclass
class Told:
    what: bytes | str


@pytest.mark.parametrize(
    "way",
    ["argument", "result", "output", "state", "break", "inline", "kept", "heartbeat", "signal", "message", "by name"],
)
def test_every_way_into_history_is_watched(way: str) -> None:
    """One value, by all ways: it never arrives as another."""

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def take(ctx: pgflow.ActivityContext, value: bytes | str) -> None: ...

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def give(ctx: pgflow.ActivityContext) -> bytes | str:
        return "abcd"

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def keep(ctx: pgflow.ActivityContext) -> None:
        ctx.state["pair"] = (1, 2)

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=1))
    async def tell(ctx: pgflow.ActivityContext) -> None:
        ctx.heartbeat((1, 2))

    @pgflow.workflow
    async def below(ctx: pgflow.WorkflowContext, value: bytes | str) -> None: ...

    async def turn(
        ctx: pgflow.WorkflowContext, state: bytes | str
    ) -> pgflow.Continue[bytes | str] | pgflow.Break[None]:
        return pgflow.Continue("abcd")

    async def leave(ctx: pgflow.WorkflowContext, state: None) -> pgflow.Continue[None] | pgflow.Break[bytes | str]:
        return pgflow.Break("abcd")

    @pgflow.message
    @dataclass
    class Published:
        what: bytes | str

    @pgflow.workflow
    async def all_ways(ctx: pgflow.WorkflowContext) -> bytes | str:
        steps: dict[str, Any] = {
            "argument": lambda: ctx.activity(take, "abcd"),
            "by name": lambda: ctx.activity(take, value="abcd"),
            "result": lambda: ctx.activity(give),
            "state": lambda: ctx.loop(turn, b"\xff"),
            "break": lambda: ctx.loop(leave, None),
            "inline": lambda: ctx.inline(below, "abcd"),
            "kept": lambda: ctx.activity(keep),
            "heartbeat": lambda: ctx.activity(tell),
            "signal": lambda: ctx.signal(Told("abcd"), to=ID),
            "message": lambda: ctx.publish(Published("abcd")),
        }
        if way != "output":
            await steps[way]()
        return "abcd"

    error = run(all_ways).error
    assert isinstance(error, SerializationError) or (
        isinstance(error, pgflow.ActivityFailed) and error.error_type == "SerializationError"
    ), error


@pytest.mark.parametrize("text", ["x" * 98, "é" * 49, "€" * 32 + "xx", "🐘" * 24 + "xx", "🐘" * 24 + "é"])
def test_the_limit_is_exact(text: str) -> None:
    size = len(json.dumps(text, ensure_ascii=False).encode())
    assert size == 100
    assert encode(text, str, what="it", limit=100)
    for shape in (text + "x", text + "🐘"):
        with pytest.raises(SerializationError, match="expected at most 100"):
            encode(shape, str, what="it", limit=100)


def test_the_limit_of_all_arguments_together_is_exact() -> None:
    @pgflow.workflow
    async def below(ctx: pgflow.WorkflowContext, a: str, b: str) -> None: ...

    size = len(below.encode_arguments(("🐘" * 10, "🐘" * 10), {}).encode())
    assert below.encode_arguments(("🐘" * 10, "🐘" * 10), {}, size)
    with pytest.raises(SerializationError, match=f"is {size:,} bytes of JSON; expected at most {size - 1:,}"):
        below.encode_arguments(("🐘" * 10, "🐘" * 10), {}, size - 1)


def test_an_inline_workflow_has_the_limit_too() -> None:
    @pgflow.workflow
    async def below(ctx: pgflow.WorkflowContext, text: str) -> None: ...

    @pgflow.workflow
    async def above(ctx: pgflow.WorkflowContext) -> None:
        await ctx.inline(below, "x" * (1 << 20))

    error = run(above).error
    assert isinstance(error, SerializationError) and "expected at most 1,048,576" in str(error)


def test_yesterdays_values_are_read_as_before() -> None:
    """What is refused today may stand in a history of yesterday."""
    assert decode('"abcd"', bytes | str, what="it") == b"i\xb7\x1d"
    assert decode('{"1":"a"}', dict[int | str, str], what="it") == {"1": "a"}
    assert decode("[1,2]", list[int] | set[int], what="it") == [1, 2]
    assert decode('{"n":3}', Doubled, what="it") == Doubled(3)
    assert decode("true", int, what="it") == 1
    assert math.isclose(decode("3", float, what="it"), 3.0)
