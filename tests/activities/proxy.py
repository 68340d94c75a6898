"""A proxy before PostgreSQL that loses either a COMMIT or the answer to it, once, on the connection of an activity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg.conninfo import conninfo_to_dict, make_conninfo

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""What psycopg sends for it."""


class Proxy:
    """Cuts the client of the first transactional activity that commits.

    Args:
        forwards: whether the server still gets the COMMIT; otherwise its side stays open until `let_go` is set.
    """

    def __init__(self, target: str, forwards: bool) -> None:
        given = conninfo_to_dict(target)
        self._host, self._port = str(given.get("host") or "127.0.0.1"), int(given.get("port") or 5432)
        self._target = target
        self._forwards = forwards
        self.cut = asyncio.Event()
        self.let_go = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dsn = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """The DSN that leads through here."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield make_conninfo(self._target, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self._host.startswith("/"):
            upstream = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        else:
            upstream = await asyncio.open_connection(self._host, self._port)
        back = asyncio.create_task(self._copy(upstream[0], writer))
        self._tasks.add(back)
        transactional = False
        try:
            while data := await reader.read(65536):
                transactional = transactional or b"pgflow activity" in data
                if transactional and not self.cut.is_set() and data.endswith(COMMIT):
                    back.cancel()
                    await asyncio.wait([back])
                    if self._forwards:
                        upstream[1].write(data)
                        await upstream[0].read(1)  # it has been executed
                    self.cut.set()
                    writer.transport.abort()
                    if not self._forwards:
                        await self.let_go.wait()
                    return
                upstream[1].write(data)
                await upstream[1].drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            upstream[1].close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
