"""A connection on which what was sent arrives late: the client is cut off, and the test decides when the server gets
it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_RESET = struct.pack("ii", 1, 0)
_READY = b"Z\0\0\0\5"
"""How the server begins to say that it has done all that it was sent."""


class Late:
    """Use `late` to have one.

    Attributes:
        dsn: where it listens.
        held: set once something is held back.
    """

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._purpose = self._word = b""
        self.held = asyncio.Event()
        self._go_on = asyncio.Event()
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dsn = ""

    def hold(self, purpose: str, word: str = "") -> None:
        """Of connections with this purpose, cut off the next one that sends this word, and keep what it has sent."""
        self._purpose, self._word = f"pgflow {purpose}".encode(), word.encode()

    async def deliver(self) -> None:
        """Let the server have it, and wait until it has done what it was told, or has refused."""
        assert self.held.is_set()
        self._go_on.set()
        async with asyncio.timeout(20):
            await self._arrived.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, port = str(self._target.get("host") or "127.0.0.1"), int(self._target.get("port") or 5432)
        if host.startswith("/"):
            up_reader, up_writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            up_reader, up_writer = await asyncio.open_connection(host, port)
        back = asyncio.create_task(self._carry_back(up_reader, writer))
        self._tasks.add(back)
        begun = b""
        try:
            while data := await reader.read(1 << 20):
                begun = begun or data
                if (
                    self._purpose
                    and self._purpose in begun
                    and data is not begun
                    and self._word in data
                    and not self.held.is_set()
                ):
                    back.cancel()
                    await asyncio.wait([back])
                    wire: socket.socket = writer.get_extra_info("socket")
                    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    writer.transport.abort()
                    self.held.set()
                    await self._go_on.wait()
                    up_writer.write(data)
                    answer = b""
                    while _READY not in answer and (more := await up_reader.read(1 << 16)):
                        answer += more
                    self._arrived.set()
                    return
                up_writer.write(data)
                await up_writer.drain()
        except ConnectionError:
            pass
        finally:
            back.cancel()
            up_writer.close()
            writer.close()

    async def _carry_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()


@asynccontextmanager
async def late(dsn: str) -> AsyncIterator[Late]:
    """Such a way to the server of a DSN."""
    made = Late(dsn)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
    try:
        yield made
    finally:
        server.close()
        for task in made._tasks:
            task.cancel()
        await asyncio.gather(*made._tasks, return_exceptions=True)
