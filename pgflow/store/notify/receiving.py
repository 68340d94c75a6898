"""Reading notifications without psycopg in between, so that each reaches its waiter directly.

On an event loop a callback reads them. A thread reads until it has what it wants, or its time is over.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable
from typing import Protocol

from psycopg.pq.abc import PGconn

from pgflow.store.database.pooler import AsyncConnection, Connection


class OnNotification(Protocol):
    """Takes one notification."""

    def __call__(self, channel: str, payload: str) -> None: ...


def _read(pgconn: PGconn, take: OnNotification) -> None:
    """Hand on the notifications that have arrived."""
    pgconn.consume_input()
    while (notify := pgconn.notifies()) is not None:
        take(notify.relname.decode(), notify.extra.decode())


async def receive(connection: AsyncConnection, take: OnNotification, seconds: float) -> None:
    """Hand on notifications as they come, for the given seconds.

    Args:
        connection: One that listens. What comes with the answer to a question goes to its notify handlers.
        take: Called on the event loop.
        seconds: How long.

    Raises:
        psycopg.OperationalError: The connection broke.
    """
    loop, pgconn = asyncio.get_running_loop(), connection.pgconn
    broken: asyncio.Future[None] = loop.create_future()
    number = pgconn.socket

    def read() -> None:
        if broken.done():
            return
        try:
            _read(pgconn, take)
        except Exception as error:
            loop.remove_reader(number)  # at once: its number may be reused in a moment
            broken.set_exception(error)

    loop.add_reader(number, read)
    try:
        await asyncio.wait([broken], timeout=seconds)
    finally:
        if not broken.done():
            loop.remove_reader(number)
    if broken.done():
        broken.result()


def _never() -> bool:
    return False


def receive_blocking(
    connection: Connection, take: OnNotification, seconds: float, enough: Callable[[], bool] = _never
) -> None:
    """As `receive`, in this thread; also until it is enough, which is asked whenever something has come."""
    pgconn, until = connection.pgconn, time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        while True:
            _read(pgconn, take)
            if enough() or (left := until - time.monotonic()) <= 0:
                return
            selector.select(left)
