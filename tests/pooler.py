"""A pooler in transaction mode, as unkind as possible: each transaction gets the session that was idle for the longest.

It speaks PostgreSQL's protocol just enough for that, refuses settings at the start of a session as pgbouncer does
unless it is told otherwise, and counts what only works by luck behind a pooler.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

STARTUP, CANCEL = 196608, 80877102
"""Versions by which a client begins: a session of protocol 3.0, or a request to cancel. All others are answered with
No.
"""

TOLD = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)
"""What a client is told of its session."""


class Session:
    """A session on the server, which belongs to whoever has a transaction in it."""

    def __init__(
        self, connection: psycopg.Connection[Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connection, self.reader, self.writer = connection, reader, writer

    @classmethod
    async def open(cls, dsn: str) -> Session:
        connection = await asyncio.to_thread(
            lambda: psycopg.connect(dsn, autocommit=True, sslmode="disable", gssencmode="disable")
        )
        wire = socket.socket(
            fileno=os.dup(connection.fileno())
        )  # libpq has signed on: from here on it is spoken to by hand
        wire.setblocking(False)
        return cls(connection, *await asyncio.open_connection(sock=wire))


class Client:
    """One connection of a client, and the session that it has at the moment."""

    def __init__(self, pooler: Pooler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.pooler, self.reader, self.writer = pooler, reader, writer
        self.session: Session | None = None
        self.expected = 0
        """Synchronisation points and simple queries that the server has not answered yet."""

    async def serve(self, pid: int, secret: int) -> None:
        """Relay until it leaves."""
        told = self.pooler.told
        self.writer.write(
            _frame(b"R", struct.pack("!i", 0)) + b"".join(_frame(b"S", _texts(*pair)) for pair in told.items())
        )
        self.writer.write(_frame(b"K", struct.pack("!II", pid, secret)) + _frame(b"Z", b"I"))
        answering: asyncio.Task[None] | None = None
        try:
            while (kind := (frame := await _read(self.reader))[:1]) != b"X":
                if self.session is None:
                    self.session = await self.pooler.idle.get()
                    answering = asyncio.create_task(self._answer(self.session))
                if kind in b"SQ":
                    self.expected += 1
                elif kind != b"H":  # psycopg asks for a flush behind its last synchronisation point
                    self.pooler.torn += self.expected > 0
                self.session.writer.write(frame)
                await self.session.writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self.session is not None:  # it left in the middle of a transaction
                assert answering is not None
                answering.cancel()
                await self.pooler.replace(self.session)

    async def _answer(self, session: Session) -> None:
        while True:
            frame = await _read(session.reader)
            self.expected -= frame[:1] == b"Z"
            idle = frame[:1] == b"Z" and frame[5:] == b"I" and not self.expected
            if idle:
                self.session = None
                self.pooler.idle.put_nowait(session)
            with suppress(ConnectionError):
                self.writer.write(frame)
                await self.writer.drain()
            if idle:
                return


class Pooler:
    """Use `pooler` to have one."""

    def __init__(self, dsn: str, sessions: int) -> None:
        self._server, self._number = dsn, sessions
        self.idle: asyncio.Queue[Session] = asyncio.Queue()
        self.sessions: list[Session] = []
        self.told: dict[str, str] = {}
        self.clients: dict[tuple[int, int], Client] = {}
        self.torn = 0
        """Statements sent before the answer to the last transaction had come: their session may be taken away in
        between.
        """
        self.refused = 0
        """Clients that asked for settings."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="pooler")
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dsn = ""

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        for _ in range(self._number):
            await self._open()
        info = self.sessions[0].connection.info
        self.told = {name: value for name in TOLD if (value := info.parameter_status(name)) is not None}
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        given = {key: str(value) for key, value in conninfo_to_dict(self._server).items()}
        self.dsn = make_conninfo(
            host="127.0.0.1", port=port, user=given.get("user", ""), dbname=given["dbname"], gssencmode="disable"
        )
        self._ready.set()
        await self._stop.wait()
        server.close()
        for session in self.sessions:
            session.writer.close()

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        """Relay nothing more: the sessions can be looked at by their `connection`."""
        assert self._loop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(30)

    async def _open(self) -> None:
        session = await Session.open(self._server)
        self.sessions.append(session)
        self.idle.put_nowait(session)

    def redirect(self, dsn: str, between: Callable[[], None]) -> None:
        """Go on with another server, when no transaction is under way. No client hears of it.

        Args:
            between: what happens when the sessions with the one have ended, and before those with the other are opened.
        """
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self._redirect(dsn, between), self._loop).result(120)

    async def _redirect(self, dsn: str, between: Callable[[], None]) -> None:
        for session in [await self.idle.get() for _ in range(self._number)]:
            self.sessions.remove(session)
            session.writer.close()
            session.connection.close()
        await asyncio.to_thread(between)
        self._server = dsn
        for _ in range(self._number):
            await self._open()

    async def replace(self, session: Session) -> None:
        """End a session that is in the middle of something."""
        self.sessions.remove(session)
        session.writer.close()
        session.connection.close()
        await self._open()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!i", await reader.readexactly(4))
                version, *rest = struct.unpack(f"!i{length - 8}s", await reader.readexactly(length - 4))
                if version == STARTUP:
                    break
                if version == CANCEL:
                    await self._cancel(*struct.unpack("!II", rest[0]))
                    return
                writer.write(b"N")
            if b"options" in rest[0].split(b"\0")[::2]:
                self.refused += 1
                writer.write(_frame(b"E", b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"))
                return
            key = (secrets.randbits(31), secrets.randbits(31))
            client = self.clients[key] = Client(self, reader, writer)
            try:
                await client.serve(*key)
            finally:
                del self.clients[key]
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _cancel(self, pid: int, secret: int) -> None:
        client = self.clients.get((pid, secret))
        if client is not None and client.session is not None:
            await asyncio.to_thread(client.session.connection.cancel_safe)


@contextmanager
def pooler(dsn: str, sessions: int = 6) -> Iterator[Pooler]:
    """A pooler before a database, in a thread of its own.

    Example:
        with pooler(dsn) as between:
            pgflow.Client(between.dsn)
    """
    made = Pooler(dsn, sessions)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        for session in made.sessions:
            session.connection.close()


async def _read(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!i", head[1:])
    return head + await reader.readexactly(length - 4)


def _frame(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content


def _texts(*texts: str) -> bytes:
    return b"".join(text.encode() + b"\0" for text in texts)
