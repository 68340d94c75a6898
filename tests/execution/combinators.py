"""What asyncio has to bring tasks together, as parts of random programs: each writes down in which order things go.

Sets are iterated as they are, which a replay has to repeat: no order here depends on addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import pgflow
from tests.execution.lives import Seen

Ctx = pgflow.WorkflowContext
Step = Coroutine[Any, Any, Any]

MANY = [
    "semaphore", "lock", "queue", "event", "condition", "barrier", "ended groups", "groups", "first group",
    "first group and cancel", "first exception", "coroutines", "futures", "ended tasks", "wait for", "shields",
]  # fmt: skip
"""Kinds of parts that have several below them."""


class Combinators:
    """The parts of an interpreter that bring together what it does at once."""

    _seen: Seen
    _at_once: Callable[[Any, Ctx, str], list[Step]]

    def _numbered(self, node: Any, ctx: Ctx, path: str) -> list[Step]:
        """Each gives its number, whether it fails or not."""

        async def one(number: int, step: Step) -> int:
            try:
                await step
            except Exception as error:
                self._seen.append(f"{path} {number} {type(error).__name__}", ctx)
            return number

        return [one(number, step) for number, step in enumerate(self._at_once(node[1], ctx, path))]

    def _stood(self, given: list[Any], found: Iterable[Any], ctx: Ctx, path: str) -> None:
        self._seen.append(f"{path} {[given.index(one) for one in found]}", ctx)

    async def _semaphore(self, node: Any, ctx: Ctx, path: str, room: int = 2) -> list[int]:
        semaphore = asyncio.Semaphore(room)

        async def one(step: Step) -> int:
            async with semaphore:
                number = int(await step)
                self._seen.append(f"{path} {number} through", ctx)
                return number

        return list(await asyncio.gather(*map(one, self._numbered(node, ctx, path))))

    async def _lock(self, node: Any, ctx: Ctx, path: str) -> list[int]:
        return await self._semaphore(node, ctx, path, 1)

    async def _queue(self, node: Any, ctx: Ctx, path: str) -> list[int]:
        queue: asyncio.PriorityQueue[tuple[int, int]] = asyncio.PriorityQueue()

        async def put(step: Step) -> None:
            number = int(await step)
            queue.put_nowait((-number, number))

        tasks = [asyncio.create_task(put(step)) for step in self._numbered(node, ctx, path)]
        numbers = [(await queue.get())[1] for _ in tasks]
        self._seen.append(f"{path} {numbers}", ctx)
        return numbers

    async def _event(self, node: Any, ctx: Ctx, path: str) -> list[int]:
        event = asyncio.Event()

        async def one(number: int, step: Step) -> int:
            if number:
                await event.wait()
                self._seen.append(f"{path} {number} goes", ctx)
            try:
                return int(await step)
            finally:
                event.set()

        return list(await asyncio.gather(*[one(n, step) for n, step in enumerate(self._numbered(node, ctx, path))]))

    async def _condition(self, node: Any, ctx: Ctx, path: str) -> list[int]:
        condition, ended = asyncio.Condition(), list[int]()

        async def one(step: Step) -> None:
            number = int(await step)
            async with condition:
                ended.append(number)
                condition.notify_all()
                await condition.wait_for(lambda: len(ended) == len(tasks))
                self._seen.append(f"{path} {number} met", ctx)

        tasks = [asyncio.create_task(one(step)) for step in self._numbered(node, ctx, path)]
        await asyncio.gather(*tasks)
        return ended

    async def _barrier(self, node: Any, ctx: Ctx, path: str) -> list[int]:
        barrier = asyncio.Barrier(len(node[1]))

        async def one(step: Step) -> int:
            await step
            place = await barrier.wait()
            self._seen.append(f"{path} {place} met", ctx)
            return place

        return list(await asyncio.gather(*map(one, self._numbered(node, ctx, path))))

    async def _as_they_end(self, given: Any, ctx: Ctx, path: str) -> list[Any]:
        found = []
        for each in asyncio.as_completed(given):
            found.append(await each)
            self._seen.append(f"{path} {found[-1]} ended", ctx)
        return found

    async def _coroutines(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        return await self._as_they_end(self._numbered(node, ctx, path), ctx, path)

    async def _groups(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        return await self._as_they_end({*map(asyncio.gather, self._numbered(node, ctx, path))}, ctx, path)

    async def _ended_groups(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        groups = [asyncio.gather(step) for step in self._numbered(node, ctx, path)]
        outer: list[asyncio.Future[Any]] = [
            *groups,
            asyncio.gather(*groups),
            asyncio.gather(*groups[:1]),
            asyncio.gather(*groups[1:]),
        ]
        done, _ = await asyncio.wait(outer)
        self._stood(outer, done, ctx, path)
        return await self._as_they_end(done, ctx, path)

    async def _ended_tasks(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        tasks = [asyncio.create_task(step) for step in self._numbered(node, ctx, path)]
        mixed = [*tasks, *map(asyncio.shield, tasks), *map(asyncio.gather, tasks)]
        await asyncio.wait({*mixed})
        return await self._as_they_end(mixed, ctx, path)

    async def _futures(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        futures = {n: asyncio.get_running_loop().create_future() for n in range(len(node[1]))}

        async def one(step: Step) -> None:
            number = int(await step)
            futures[number].set_result(number)

        tasks = [asyncio.create_task(one(step)) for step in self._numbered(node, ctx, path)]
        first = await self._as_they_end(futures.values(), ctx, path)
        await asyncio.gather(*tasks)
        return [*first, *await self._as_they_end({*futures.values()}, ctx, path)]

    async def _first_group(self, node: Any, ctx: Ctx, path: str) -> int:
        groups: list[Any] = [asyncio.gather(step) for step in self._numbered(node, ctx, path)]
        groups.append(asyncio.gather(*groups))
        done, pending = await asyncio.wait(groups, return_when=asyncio.FIRST_COMPLETED)
        self._stood(groups, done, ctx, path)
        self._stood(groups, pending, ctx, path)
        if node[0].endswith("cancel"):
            for group in pending:
                group.cancel()
        return len(done)

    _first_group_and_cancel = _first_group

    async def _first_exception(self, node: Any, ctx: Ctx, path: str) -> list[int]:
        tasks: list[Any] = [asyncio.gather(step) for step in self._at_once(node[1], ctx, path)]
        for when in (asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED):
            done, pending = await asyncio.wait(tasks, return_when=when)
            self._stood(tasks, done, ctx, path)
            self._stood(tasks, pending, ctx, path)
        return [n for n, task in enumerate(tasks) if not task.cancelled() and task.exception() is not None]

    async def _wait_for(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        group = asyncio.gather(*self._numbered(node, ctx, path))
        return list(await asyncio.wait_for(group, None))

    async def _shields(self, node: Any, ctx: Ctx, path: str) -> list[Any]:
        shields = [asyncio.shield(step) for step in self._numbered(node, ctx, path)]
        return await self._as_they_end(shields, ctx, path)
