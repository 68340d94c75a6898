"""Messages as a subscriber reads them: what `Client.subscribe` returns."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Generic, Self, TypeVar

from pgflow.codec import decode
from pgflow.definitions.retry import seconds
from pgflow.store.client.subscriptions import Inbox, Subscriptions

T = TypeVar("T")


class Subscription(Generic[T]):
    """An endless iterator over messages. The subscription begins when the first message is asked for, or at the start
    of a `with` block.

    Example:
        async with client.subscribe(Progress, tags={"order": 7}) as messages:
            await client.dispatch(checkout, order)
            async for progress in messages:
                print(progress.done)
    """

    __slots__ = ("_inbox", "_message", "_subscriptions")

    def __init__(self, subscriptions: Subscriptions, inbox: Inbox, message: type[T]) -> None:
        self._subscriptions = subscriptions
        self._inbox = inbox
        self._message = message

    @property
    def dropped(self) -> int:
        """Messages that arrived and were not read: the buffer was full, or a large one was removed before its turn."""
        return self._inbox.dropped

    async def next(self, timeout: timedelta | float | None = None) -> T:
        """The next message; waits until there is one.

        Raises:
            TimeoutError: none has come in time (a timedelta or seconds).
            SerializationError: its body does not fit the class; the next call gives the next message.
            StopAsyncIteration: the subscription is closed.

        Example:
            progress = await messages.next(timeout=5)
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        taken = await self._subscriptions.take(self._inbox, limit)
        if taken is None:
            raise StopAsyncIteration
        notice, body = taken
        message: T = decode(body, self._message, what=f'message "{notice.name}" {notice.id}')
        return message

    def close(self) -> None:
        """End the subscription, and every loop over it."""
        self._subscriptions.leave(self._inbox)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        return await self.next()

    async def __aenter__(self) -> Self:
        """Begin: every message that is published from now on arrives."""
        await self._subscriptions.begin(self._inbox)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        return f"Subscription({self._inbox.name!r}, tags={self._inbox.tags})"
