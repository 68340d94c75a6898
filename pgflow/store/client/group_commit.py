"""Group commit for clients: what many callers ask for at the same time leaves as one statement.

A single caller waits for nobody: the first statement leaves at once, and the next one gathers callers until its answer
is there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from pgflow.store.database.retrying import is_refusal

A = TypeVar("A")
B = TypeVar("B")

MOST = 500
"""The most callers that one statement serves."""


class GroupCommit(Generic[A, B]):
    """Sends what callers give, together; each gets its own answer or its own error.

    Example:
        signals = GroupCommit(send, size=lambda sending: len(sending.body), limit=8 << 20)
        sent = await signals.ask(sending)
    """

    def __init__(
        self, send: Callable[[Sequence[A]], Awaitable[Sequence[B]]], size: Callable[[A], int], limit: int
    ) -> None:
        """
        Args:
            send: Sends some, and answers each, in order. Sending one of them again must be harmless.
            size: Gives the characters of one of them.
            limit: The most characters of one statement, unless a single one has more.
        """
        self._send = send
        self._size = size
        self._limit = limit
        self._waiting: deque[tuple[A, asyncio.Future[B]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: A) -> B:
        """Send one, and wait for its answer.

        Raises:
            Exception: What sending it raised.
        """
        answer: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="pgflow group commit")
        return await answer

    async def _run(self) -> None:
        try:
            while batch := self._next():
                await self._send_batch(batch)
        finally:
            self._task = None
            for _, answer in self._waiting:  # empty unless this task was cancelled because its event loop ends
                answer.cancel()
            self._waiting.clear()

    def _next(self) -> list[tuple[A, asyncio.Future[B]]]:
        """The callers that wait, without those that have given up."""
        batch: list[tuple[A, asyncio.Future[B]]] = []
        held = 0
        while self._waiting and len(batch) < MOST:
            item, answer = self._waiting[0]
            held += self._size(item)
            if batch and held > self._limit:
                break
            self._waiting.popleft()
            if not answer.done():
                batch.append((item, answer))
        return batch

    async def _send_batch(self, batch: list[tuple[A, asyncio.Future[B]]]) -> None:
        try:
            answers = await self._send([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and is_refusal(error):
                # One of the statements may be at fault: each is sent alone, so that each caller gets its own error.
                half = len(batch) // 2
                await self._send_batch(batch[:half])
                await self._send_batch(batch[half:])
                return
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
        except BaseException:
            for _, answer in batch:
                answer.cancel()
            raise
        else:
            for (_, answer), found in zip(batch, answers, strict=True):
                if not answer.done():
                    answer.set_result(found)
