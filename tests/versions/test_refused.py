"""Every edit that breaks history: refused with its place, what was expected and what was found; nothing is written, and
mended code goes on. About 2 seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest

import pgflow
from pgflow.testing import replay
from tests.execution.programs import echo
from tests.testing.stored import stored
from tests.versions.lives import Program, begun, ended, failure

Context = pgflow.WorkflowContext
Body = Callable[[Context], Awaitable[Any]]
Turn = pgflow.Continue[int] | pgflow.Break[None]

reserve, charge, fax = echo.options(name="reserve"), echo.options(name="charge"), echo.options(name="fax")


def order(body: Body) -> Program:
    @pgflow.workflow(name="order")
    async def program(ctx: Context) -> Any:
        return await body(ctx)

    return program


async def two_steps(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(charge, "2")
    await ctx.sleep(60)


async def with_insertion(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.v(2).activity(fax, "2")
    await ctx.sleep(60)


async def with_check(ctx: Context) -> None:
    if await ctx.check_version(2) >= 2:
        await ctx.activity(reserve, "1")
    await ctx.sleep(60)


async def with_mark(ctx: Context) -> None:
    await ctx.removed("activity", "fax")
    await ctx.sleep(60)


async def branched(ctx: Context) -> None:
    async def pay(branch: Context) -> None:
        await branch.activity(charge, "2")
        await branch.sleep(60)

    await ctx.join(ctx.activity(reserve, "1"), pay)


async def looped(ctx: Context) -> None:
    async def turn(ctx: Context, n: int) -> Turn:
        await ctx.activity(charge, str(n))
        await ctx.sleep(60)
        return pgflow.Continue(n + 1) if n < 3 else pgflow.Break()

    await ctx.loop(turn, 1)


class Refused(NamedTuple):
    """An edit of `before`, which sleeps for the so many-th time, and what it is refused with."""

    before: Body
    sleeps: int
    location: str
    expected: str
    found: str
    latent: bool = False


CASES: list[tuple[Body, Refused]] = []


def refused(
    before: Body, location: str, expected: str, found: str, *, sleeps: int = 1, latent: bool = False
) -> Callable[[Body], Body]:
    def note(after: Body) -> Body:
        CASES.append((after, Refused(before, sleeps, location, expected, found, latent)))
        return after

    return note


def step(name: str, version: int = 1) -> str:
    return f"{name} of version {version}"


CHARGE, RESERVE, FAX = step('activity "charge"'), step('activity "reserve"'), step('activity "fax"')


@refused(two_steps, "{1}", FAX, RESERVE)
async def inserted_first_without_a_version(ctx: Context) -> None:
    await ctx.activity(fax, "0")
    await two_steps(ctx)


@refused(two_steps, "{2}", FAX, CHARGE)
async def inserted_between_without_a_version(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(fax, "0")
    await ctx.activity(charge, "2")
    await ctx.sleep(60)


@refused(two_steps, "{3}", FAX, step("sleep"))
async def inserted_before_what_is_awaited(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(charge, "2")
    await ctx.activity(fax, "0")
    await ctx.sleep(60)


@refused(with_insertion, "{2}", step('activity "charge"', 2), step('activity "fax"', 2))
async def inserted_at_the_version_that_is_there(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.v(2).activity(charge, "3")
    await ctx.v(2).activity(fax, "2")
    await ctx.sleep(60)


@refused(two_steps, "{1}", CHARGE, RESERVE)
async def removed_without_a_mark(ctx: Context) -> None:
    await ctx.activity(charge, "2")
    await ctx.sleep(60)


@refused(two_steps, "{1}", 'activity "fax", which the code says was removed', RESERVE)
async def removed_under_another_name(ctx: Context) -> None:
    await ctx.removed("activity", "fax")
    await ctx.activity(charge, "2")
    await ctx.sleep(60)


@refused(two_steps, "{1}", "sleep, which the code says was removed", RESERVE)
async def removed_as_another_kind(ctx: Context) -> None:
    await ctx.removed("sleep")
    await ctx.activity(charge, "2")
    await ctx.sleep(60)


@refused(two_steps, "{3}", "the end of the workflow", "sleep", latent=True)
async def removed_at_the_end_without_a_mark(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(charge, "2")


@refused(two_steps, "{1}", "the end of the workflow", 'activity "reserve"', latent=True)
async def nothing_left(ctx: Context) -> None:
    pass


@refused(two_steps, "{1}", CHARGE, RESERVE)
async def reordered(ctx: Context) -> None:
    await ctx.activity(charge, "2")
    await ctx.activity(reserve, "1")
    await ctx.sleep(60)


@refused(two_steps, "{2}", FAX, CHARGE)
async def renamed(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(fax, "2")
    await ctx.sleep(60)


@refused(two_steps, "{3}", step("timeout"), step("sleep"))
async def another_kind(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(charge, "2")
    async with ctx.timeout(60):
        await ctx.activity(fax, "3")


@refused(two_steps, "{2}", step('branch "pay"'), CHARGE)
async def moved_into_a_branch(ctx: Context) -> None:
    await ctx.activity(reserve, "1")

    async def pay(branch: Context) -> None:
        await branch.activity(charge, "2")

    await ctx.branch(pay)
    await ctx.sleep(60)


@refused(with_insertion, "{2}", step("sleep"), step('activity "fax"', 2))
async def rolled_back_behind_an_insertion(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.sleep(60)


@refused(with_insertion, "{2}", FAX, step('activity "fax"', 2))
async def an_insertion_that_lost_its_version(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.activity(fax, "2")
    await ctx.sleep(60)


@refused(with_check, "{1}", RESERVE, step("version_check", 2))
async def a_check_that_is_gone(ctx: Context) -> None:
    await ctx.activity(reserve, "1")
    await ctx.sleep(60)


@refused(with_mark, "{1}", step("sleep"), step('removed "fax"'))
async def a_mark_that_is_gone(ctx: Context) -> None:
    await ctx.sleep(60)


@refused(with_mark, "{1}", FAX, step('removed "fax"'))
async def a_removed_step_that_is_back(ctx: Context) -> None:
    await ctx.activity(fax, "0")
    await ctx.sleep(60)


@refused(branched, "{2, 1}", FAX, CHARGE)
async def in_a_branch(ctx: Context) -> None:
    async def pay(branch: Context) -> None:
        await branch.activity(fax, "0")
        await branch.activity(charge, "2")
        await branch.sleep(60)

    await ctx.join(ctx.activity(reserve, "1"), pay)


@refused(branched, "{2, 1}", "the end of the branch {2}", 'activity "charge"', latent=True)
async def a_branch_with_nothing_left(ctx: Context) -> None:
    async def pay(branch: Context) -> None: ...

    await ctx.join(ctx.activity(reserve, "1"), pay)


@refused(branched, "{2, 2}", "the end of the branch {2}", "sleep", latent=True)
async def a_branch_that_fails_and_is_compensated(ctx: Context) -> None:
    async def pay(branch: Context) -> None:
        await branch.activity(charge, "2")
        raise KeyError

    try:
        await ctx.join(ctx.activity(reserve, "1"), pay)
    except KeyError:
        await ctx.activity(fax, "compensates what history knows to go on")


@refused(looped, "{1, 2, 1}", FAX, CHARGE, sleeps=2)
async def in_a_turn(ctx: Context) -> None:
    async def turn(ctx: Context, n: int) -> Turn:
        await ctx.activity(fax, "0")
        await ctx.activity(charge, str(n))
        await ctx.sleep(60)
        return pgflow.Continue(n + 1) if n < 3 else pgflow.Break()

    await ctx.loop(turn, 1)


@refused(looped, "{1, 2, 2}", "the end of the branch {1, 2}", "sleep", sleeps=2, latent=True)
async def a_turn_that_ends_earlier(ctx: Context) -> None:
    async def turn(ctx: Context, n: int) -> Turn:
        await ctx.activity(charge, str(n))
        return pgflow.Continue(n + 1) if n < 3 else pgflow.Break()

    await ctx.loop(turn, 1)


@refused(looped, "{1}", CHARGE, step('loop "turn"'), sleeps=2)
async def a_loop_that_was_unrolled(ctx: Context) -> None:
    for n in range(3):
        await ctx.activity(charge, str(n))
        await ctx.sleep(60)


@pytest.mark.parametrize(("after", "case"), CASES, ids=[after.__name__ for after, _ in CASES])
def test_refused_with_its_place_and_without_a_trace(after: Body, case: Refused) -> None:
    world = begun(order(case.before), case.sleeps)
    history, executed = dict(world.events), list(world.executed)

    kind = pgflow.LatentHistory if case.latent else pgflow.HistoryDiverged
    with pytest.raises(kind) as error:
        replay(order(after), stored(world))
    assert (error.value.location, error.value.expected, error.value.found) == (case.location, case.expected, case.found)

    ended(world, order(after))
    name, message = failure(world)
    assert name == kind.__name__
    assert case.location in message and case.found.split(" of ")[0] in message and "ctx.removed(" in message
    if not case.latent:
        assert case.expected in message and "ctx.v(" in message and "ctx.check_version(" in message
        assert ("newer code" in message) == (case.found.endswith("2") and not case.expected.endswith("2"))
    assert world.events == history and world.executed == executed, "nothing was written, nothing was run"

    world.status = "pending"  # what a retry comes to
    assert ended(world, order(case.before)).status == "completed", world.error
