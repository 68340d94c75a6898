"""What asyncio decides by sets is the same live and on replay, or refused with the name of what to use instead."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest

import pgflow
from pgflow.testing import run

Ctx = pgflow.WorkflowContext
Body = Callable[[Ctx], Any]


@pgflow.activity
async def number(ctx: pgflow.ActivityContext, n: int) -> int:
    return n


@pgflow.activity
async def keep(ctx: pgflow.ActivityContext, seen: Any) -> Any:
    return seen


def lived_twice(body: Body) -> pgflow.Workflow[Any, Any]:
    """A workflow that records what `body` returns live, and compares that with what it returns on replay."""

    @pgflow.workflow
    async def twice(ctx: Ctx) -> bool:
        seen = await body(ctx)
        live = await ctx.activity(keep, seen)
        await ctx.sleep(3600)  # given up and replayed
        return bool(live == seen)

    return twice


def same_in_every_life(body: Body, times: int = 12) -> None:
    litter = []
    for n in range(times):  # memory is in ever other states
        litter.append([object() for _ in range(97 * n)])
        ran = run(lived_twice(body))
        assert ran.status == "completed", ran.error
        assert ran.output is True
        litter[n // 2].clear()


def refused(body: Body) -> str:
    ran = run(lived_twice(body))
    assert ran.status == "failed"
    assert isinstance(ran.error, pgflow.NondeterminismError)
    assert not [event for event in ran.history.events if event.name == "keep"]
    return str(ran.error)


def limited(ctx: Ctx, count: int) -> list[Any]:
    """Coroutines of which only two go on at a time: whoever begins first ends first."""
    semaphore = asyncio.Semaphore(2)

    def one(page: int) -> Any:
        async def body(ctx: Ctx) -> int:
            async with semaphore:
                return await ctx.activity(number, page)

        return ctx.branch(body)

    return [one(page) for page in range(count)]


def test_as_completed_of_coroutines() -> None:
    async def body(ctx: Ctx) -> list[int]:
        return [await done for done in asyncio.as_completed(limited(ctx, 30))]

    same_in_every_life(body)


def test_as_completed_begins_in_the_order_in_which_it_is_given() -> None:
    async def body(ctx: Ctx) -> list[int]:
        begun: list[int] = []

        async def begins(n: int) -> None:
            begun.append(n)

        twice = begins(0)
        for done in asyncio.as_completed([twice, *map(begins, range(1, 20)), twice]):
            await done
        return begun

    ran = run(pgflow.workflow(body))
    assert ran.output == list(range(20))


def test_as_completed_of_tasks_and_of_coroutines_beside_them() -> None:
    async def body(ctx: Ctx) -> list[int]:
        coroutines = limited(ctx, 20)
        mixed = [asyncio.ensure_future(one) if n % 3 else one for n, one in enumerate(coroutines)]
        return [await done for done in asyncio.as_completed(mixed)]

    same_in_every_life(body)


@pytest.mark.parametrize("how", ["map", "set"])
def test_as_completed_of_coroutines_without_an_order(how: str) -> None:
    async def body(ctx: Ctx) -> list[int]:
        coroutines = limited(ctx, 5)
        given: Any = set(coroutines) if how == "set" else map(lambda one: one, coroutines)
        return [await done for done in asyncio.as_completed(given)]

    assert f"coroutines in a {how}" in refused(body)
    assert "as_completed([...])" in refused(body)


def test_as_completed_of_awaitables_that_are_no_coroutines() -> None:
    class Waits:
        def __init__(self, one: Any) -> None:
            self.one = one

        def __await__(self) -> Any:
            return self.one.__await__()

    async def body(ctx: Ctx) -> list[int]:
        return [await done for done in asyncio.as_completed([Waits(one) for one in limited(ctx, 5)])]

    assert "create_task" in refused(body)


def test_as_completed_of_coroutines_beside_several_that_have_ended() -> None:
    async def body(ctx: Ctx) -> list[int]:
        tasks = [asyncio.ensure_future(ctx.activity(number, n)) for n in range(3)]
        await asyncio.wait(tasks)
        return [await done for done in asyncio.as_completed([*tasks, *limited(ctx, 3)])]

    assert "create_task" in refused(body)


def test_sets_of_futures() -> None:
    async def body(ctx: Ctx) -> list[int]:
        futures = [asyncio.get_running_loop().create_future() for _ in range(40)]
        for future in futures[::3]:
            future.set_result(None)
        await asyncio.sleep(0)
        done, pending = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 14
        return [futures.index(future) for future in [*done, *pending]]

    same_in_every_life(body)


def test_futures_after_turns_that_replay_skips() -> None:
    async def body(ctx: Ctx) -> list[int]:
        async def turn(ctx: Ctx, n: int) -> pgflow.Continue[int] | pgflow.Break[int]:
            asyncio.get_running_loop().create_future()
            await ctx.activity(number, n)
            return pgflow.Continue(n + 1) if n < 30 else pgflow.Break(n)

        await ctx.loop(turn, 0)
        futures = {asyncio.get_running_loop().create_future(): n for n in range(9)}
        return [futures[future] for future in set(futures)]

    same_in_every_life(body, 2)


def test_the_keys_of_a_dict_have_an_order() -> None:
    async def body(ctx: Ctx) -> list[int]:
        by_step = {coroutine: number for number, coroutine in enumerate(limited(ctx, 12))}
        return [await done for done in asyncio.as_completed(by_step.keys())]

    same_in_every_life(body)


def groups_of(ctx: Ctx, count: int) -> list[Any]:
    return [asyncio.gather(ctx.activity(number, 2 * n), ctx.activity(number, 2 * n + 1)) for n in range(count)]


async def as_they_end(awaitables: Any) -> list[Any]:
    return [await done for done in asyncio.as_completed(awaitables)]


def test_groups_in_wait_and_as_completed() -> None:
    async def waits(ctx: Ctx) -> list[int]:
        groups = groups_of(ctx, 7)
        done, pending = await asyncio.wait(groups, return_when=asyncio.FIRST_COMPLETED)
        first = [groups.index(group) for group in [*done, *pending]]
        done, _ = await asyncio.wait(groups)
        return [len(done), *first, *[groups.index(group) for group in done]]

    async def completes(ctx: Ctx) -> list[Any]:
        return await as_they_end(groups_of(ctx, 4))

    async def alone(ctx: Ctx) -> list[Any]:
        done, _ = await asyncio.wait([asyncio.gather(*limited(ctx, 3))])
        return list(done.pop().result())

    async def tasks(ctx: Ctx) -> list[Any]:
        groups = [asyncio.create_task(ctx.join(*limited(ctx, 2))) for _ in range(4)]
        done, pending = await asyncio.wait(groups, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(groups)
        return [groups.index(task) for task in [*done, *pending]]

    same_in_every_life(waits)
    same_in_every_life(completes, 3)
    same_in_every_life(alone, 3)
    same_in_every_life(tasks, 3)


def test_groups_that_have_ended_already() -> None:
    async def completes(ctx: Ctx) -> list[Any]:
        groups = groups_of(ctx, 9)
        await asyncio.gather(*groups)
        return await as_they_end(groups)

    async def of_groups_and_tasks(ctx: Ctx) -> list[Any]:
        inner = groups_of(ctx, 6)
        groups = [
            asyncio.gather(*inner[:3]),
            asyncio.gather(*inner[3:]),
            *[asyncio.shield(one) for one in inner],
            *inner,
        ]
        mixed = [*groups, *[asyncio.ensure_future(ctx.activity(number, n)) for n in range(5)]]
        await asyncio.wait(mixed)
        return await as_they_end({*mixed})

    async def a_dozen_times(ctx: Ctx) -> list[Any]:
        async def turn(ctx: Ctx, seen: list[Any]) -> pgflow.Continue[list[Any]] | pgflow.Break[list[Any]]:
            groups = groups_of(ctx, 5)
            await asyncio.wait(groups)
            seen = [*seen, *await as_they_end(groups)]
            return pgflow.Continue(seen) if len(seen) < 60 else pgflow.Break(seen)

        return list(await ctx.loop(turn, []))

    same_in_every_life(completes)
    same_in_every_life(of_groups_and_tasks)
    same_in_every_life(a_dozen_times, 3)


def test_groups_of_other_loops_are_as_ever() -> None:
    async def other() -> None:
        group = asyncio.gather(asyncio.sleep(0))
        assert hash(group) == object.__hash__(group)
        assert len(await asyncio.wait([group, asyncio.gather(asyncio.sleep(0))])) == 2

    asyncio.run(other())


def test_futures_that_the_code_makes_by_itself() -> None:
    """They stand in sets by their addresses."""

    def made(ended: bool) -> list[asyncio.Future[int]]:
        futures: list[asyncio.Future[int]] = [asyncio.Future() for _ in range(4)]
        if ended:
            for n, future in enumerate(futures):
                future.set_result(n)
        return futures

    async def waits(ctx: Ctx) -> int:
        return len(await asyncio.wait(made(True)))

    async def completes(ctx: Ctx) -> list[int]:
        return await as_they_end(made(True))

    async def completes_later(ctx: Ctx) -> list[int]:
        futures = made(False)

        async def sets(ctx: Ctx) -> None:
            for n in (2, 0, 1, 3):
                futures[n].set_result(await ctx.activity(number, n))

        setting = asyncio.ensure_future(ctx.branch(sets))
        found = await as_they_end(futures)
        await setting
        return found

    assert "asyncio.get_running_loop().create_future()" in refused(waits)
    assert "asyncio.as_completed was given a Future beside others" in refused(completes)
    same_in_every_life(completes_later, 3)


def test_a_generator_left_by_break_with_steps_in_its_finally() -> None:
    def rows(ctx: Ctx, steps: int) -> AsyncIterator[int]:
        async def found() -> AsyncIterator[int]:
            try:
                for n in range(3):
                    yield await ctx.activity(number, n)
            finally:
                for n in range(steps):
                    await ctx.activity(number, 10 + n)

        return found()

    async def left(ctx: Ctx) -> int:
        async for row in rows(ctx, 2):
            if row == 1:
                break
        return 1

    async def returned(ctx: Ctx) -> int:
        async def first() -> int:
            async for row in rows(ctx, 1):
                return row
            return -1

        return await first()

    async def closed(ctx: Ctx) -> int:
        async with aclosing(rows(ctx, 2)) as found:  # type: ignore[type-var]
            async for row in found:
                if row == 1:
                    break
        return 1

    for body in (left, returned):
        assert "contextlib.aclosing(found(...))" in refused(body)
    same_in_every_life(closed, 2)


def test_a_generator_left_by_break_that_waits_in_its_finally() -> None:
    async def body(ctx: Ctx) -> int:
        async def rows() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                await asyncio.Event().wait()

        async for row in rows():
            return row
        return 0

    assert "contextlib.aclosing" in refused(body)


def test_what_a_generators_finally_does_at_once_is_done_where_it_is_left() -> None:
    async def body(ctx: Ctx) -> list[Any]:
        seen: list[Any] = []
        lock = asyncio.Lock()

        async def inner() -> AsyncIterator[int]:
            try:
                yield await ctx.activity(number, 1)
            finally:
                seen.append("inner")

        async def rows() -> AsyncIterator[int]:
            try:
                async with lock:
                    async for row in inner():
                        yield row
            finally:
                seen.append("left")

        async for _ in rows():
            break
        seen.append(lock.locked())
        return seen

    ran = run(pgflow.workflow(body))
    assert ran.output == ["inner", "left", False]
    same_in_every_life(body, 2)


def test_a_generator_in_a_circle_is_closed_with_the_run() -> None:
    """Else its `finally` would run when the collector comes by, in the middle of anything."""
    seen: list[str] = []

    async def body(ctx: Ctx) -> list[str]:
        class Holds:
            rows: Any

        async def rows() -> AsyncIterator[int]:
            try:
                yield 1
            finally:
                seen.append("closed")

        holds = Holds()
        holds.rows = rows(), holds
        async for _ in holds.rows[0]:
            break
        del holds
        gc.collect()
        return list(seen)

    assert run(pgflow.workflow(body)).output == []
    assert seen == ["closed"]
