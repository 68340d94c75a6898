"""Arguments that are not the recorded ones: reported by a replay, refused by a strict worker, and compared by their
meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

import pgflow
from pgflow.testing import replay, run
from tests.execution.test_sets import keep, number

Ctx = pgflow.WorkflowContext


@pgflow.signal
@dataclass
class Told:
    names: set[str] = field(default_factory=set)


@pgflow.signal
@dataclass
class Other:
    n: int = 0


@pgflow.message
@dataclass
class Shown:
    n: int


@pgflow.activity
async def many(ctx: pgflow.ActivityContext, names: set[str], ratio: float = 1.0) -> int:
    return len(names)


@pgflow.activity(name="many")
async def many_more(ctx: pgflow.ActivityContext, names: set[str], ratio: float = 1.0, express: bool = False) -> int:
    return len(names)


@pgflow.activity(name="many")
async def many_renamed(ctx: pgflow.ActivityContext, texts: set[str]) -> int:
    return len(texts)


def before_and_after(body: Callable[[Ctx, int], Any]) -> tuple[pgflow.Workflow[Any, Any], pgflow.Workflow[Any, Any]]:
    def life(n: int) -> pgflow.Workflow[Any, Any]:
        @pgflow.workflow(name="edited")
        async def edited(ctx: Ctx) -> None:
            await body(ctx, n)
            await ctx.sleep(3600)
            await ctx.sleep(3600)

        return edited

    return life(1), life(2)


STEPS: dict[str, Callable[[Ctx, int], Any]] = {
    "activity": lambda ctx, n: ctx.activity(number, n),
    "signal": lambda ctx, n: ctx.signal(Told({str(n)}), to=ctx.id),
    "receiver": lambda ctx, n: ctx.signal(Told(), workflow="other", tags={"n": n}),
    "message": lambda ctx, n: ctx.publish(Shown(n)),
    "message tags": lambda ctx, n: ctx.publish(Shown(1), tags={"n": n}),
    "listen": lambda ctx, n: ctx.listen(*[Told, Other][:n], timeout=10),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_replay_tells_of_other_arguments(step: str) -> None:
    before, after = before_and_after(STEPS[step])
    ran = run(before, limit=12)
    assert len(ran.history.events) >= 2
    assert replay(before, ran.history).other_arguments == ()
    (other,) = replay(after, ran.history).other_arguments
    assert other.location == "{1}"
    assert other.step.startswith(ran.history.events[0].kind)
    assert other.recorded == ran.history.events[0].input
    assert other.recorded != other.given
    assert "other arguments" in str(other)


async def waits(ctx: Ctx, seen: set[str]) -> pgflow.Continue[set[str]] | pgflow.Break[None]:
    await ctx.sleep(3600)
    return pgflow.Continue({*seen, str(len(seen))}) if len(seen) < 5 else pgflow.Break()


def test_the_state_that_a_loop_begins_with() -> None:
    before, after = before_and_after(lambda ctx, n: ctx.loop(waits, {str(n), "a", "b"}, commit_interval=2))
    ran = run(before, limit=3)  # one turn has ended
    assert replay(before, ran.history).other_arguments == ()
    (other,) = replay(after, ran.history).other_arguments
    assert (other.location, other.step) == ("{1}", 'loop "waits"')
    assert (other.recorded, other.given) == (ran.history.events[0].loop_state, other.given)
    assert '"2"' in other.given and '"2"' not in other.recorded
    assert replay(after, run(before).history).other_arguments == ()  # its row has the state of a later turn


def test_the_steps_of_an_inline_workflow_are_compared() -> None:
    """Its own arguments are not recorded: what they do is."""

    @pgflow.workflow
    async def inner(ctx: Ctx, n: int, unused: int) -> None:
        await ctx.activity(number, n)

    before, after = before_and_after(lambda ctx, n: ctx.inline(inner, n, 1))
    (other,) = replay(after, run(before, limit=12).history).other_arguments
    assert other.location == "{1, 1}"
    before, after = before_and_after(lambda ctx, n: ctx.inline(inner, 1, n))
    assert replay(after, run(before, limit=12).history).other_arguments == ()


SAME: dict[str, tuple[Callable[[Ctx, int], Any], bool]] = {
    "sets in another order": (lambda ctx, n: ctx.signal(Told({"a", "b"}), to=ctx.id), True),
    "the set that a loop begins with": (lambda ctx, n: ctx.loop(waits, {"a", "b", "c"}), True),
    "a sleep's duration": (lambda ctx, n: ctx.sleep(n), True),
    "a listen's timeout": (lambda ctx, n: ctx.listen(Told, timeout=timedelta(seconds=n)), True),
    "the order of a listen's types": (lambda ctx, n: ctx.listen(*[Told, Other][:: 3 - 2 * n], timeout=10), True),
    "a new parameter with a default": (lambda ctx, n: ctx.activity(many if n == 1 else many_more, {"a"}), True),
    "a default that is given": (lambda ctx, n: ctx.activity(many, {"a"}, *[1.0][: n - 1]), True),
    "an int for a float": (lambda ctx, n: ctx.activity(many, {"a"}, *[2.0, 2][n - 1 : n]), True),
    "a parameter of another name": (lambda ctx, n: ctx.activity(many if n == 1 else many_renamed, {"a"}), False),
    "arguments that do not fit": (lambda ctx, n: ctx.activity(number, *[1, 2][:n]), False),
}


@pytest.mark.parametrize("what", SAME)
def test_what_counts_as_the_same(what: str) -> None:
    body, same = SAME[what]
    before, after = before_and_after(body)
    found = replay(after, run(before, limit=12).history)
    assert (found.other_arguments == ()) is same, found.other_arguments


def test_sets_are_equal_in_any_order() -> None:
    @pgflow.workflow(name="edited")
    async def edited(ctx: Ctx) -> None:
        await ctx.activity(many, {"a", "b", "c"})
        await ctx.signal(Told({"a", "b", "c"}), to=ctx.id)
        await ctx.sleep(3600)

    history = run(edited).history
    shuffled = [  # as a process with other hashes writes them
        event._replace(
            input=event.input.replace('"a"', "?").replace('"b"', '"a"').replace("?", '"b"') if event.input else None
        )
        for event in history.events
    ]
    assert [event.input for event in shuffled] != [event.input for event in history.events]
    history.events[:] = shuffled
    assert replay(edited, history).other_arguments == ()


def test_whoever_is_strict_refuses_before_anything_is_written() -> None:
    lives = 0

    @pgflow.workflow
    async def counts(ctx: Ctx) -> None:
        nonlocal lives
        mine = lives = lives + 1
        await ctx.activity(number, 1)
        await ctx.sleep(3600)
        await ctx.activity(keep, "before")
        await ctx.sleep(3600)
        try:
            await ctx.activity(number, mine)
        except pgflow.NondeterminismError:
            pass
        await ctx.activity(keep, "after")
        await ctx.sleep(3600)

    ran = run(counts)  # each sleep is a life; the second number is called first in the third
    assert ran.status == "failed"
    assert isinstance(ran.error, pgflow.NondeterminismError)
    assert ran.error.location == "{5}"
    assert '{"n":3}' in str(ran.error) and '{"n":4}' in str(ran.error)
    names = [event.name or event.kind for event in ran.history.events]
    assert names == ["number", "sleep", "keep", "sleep", "number", "keep", "sleep"]


def test_a_pending_step_is_compared_too() -> None:
    lives = 0

    @pgflow.activity(retry=pgflow.RetryPolicy(max_attempts=3, initial=30.0, jitter=False))
    async def fails(ctx: pgflow.ActivityContext, n: int) -> None:
        raise RuntimeError

    @pgflow.workflow
    async def counts(ctx: Ctx) -> None:
        nonlocal lives
        lives += 1
        await ctx.activity(fails, lives)

    ran = run(counts)
    assert isinstance(ran.error, pgflow.NondeterminismError)
    assert [event.attempts for event in ran.history.events] == [1]
