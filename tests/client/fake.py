"""What stands in for a worker and for a bad network: a few lines of SQL, and a proxy that cuts connections."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflow.store.queries.dispatching import done

PATIENCE = 20.0
"""Seconds after which a condition that does not come true fails the test."""


def end(dsn: str, ids: Iterable[UUID], output: str = "null", *, status: str = "completed", tell: bool = True) -> None:
    """End workflows as a worker would."""
    ended = list(ids)
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM pgflow.runs WHERE workflow_id = ANY(%s)", [ended])
        connection.execute(
            "UPDATE pgflow.workflows SET status = %s, output = %s::json, completed_at = now() WHERE id = ANY(%s)",
            [status, output, ended],
        )
    if tell:
        with psycopg.connect(dsn, autocommit=True) as connection:
            query = done("pgflow", ended)
            connection.execute(query.sql, query.params)


def count(dsn: str, table: str = "workflows") -> int:
    """Rows of a table."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM pgflow.{table}".encode()).fetchone()
        assert row is not None
        return int(row[0])


def kill_connections(dsn: str) -> int:
    """Terminate all other connections to this database; how many there were."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone()
        assert row is not None
        return int(row[0])


SYNC = b"S\0\0\0\4"
"""The message that ends a transaction that was begun by its first statement."""


class Proxy:
    """A way to the server that can be cut right after the server has answered a statement.

    Attributes:
        dsn: where it listens.
        cut_after: a word in a statement; the answer to the first statement that holds it never arrives.
        cuts: how many connections were cut so.
        withholds: no answer passes from a transaction's first statement to its end.
        withheld: how often one was held up so.
    """

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._writers: set[asyncio.StreamWriter] = set()
        self.cut_after: bytes | None = None
        self.cuts = 0
        self.withholds = False
        self.withheld = 0
        self.dsn = ""

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = str(self._target.get("host") or "127.0.0.1"), int(self._target.get("port") or 5432)
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection."""
        up_reader, up_writer = await self._open()
        self._writers |= {writer, up_writer}
        doomed = asyncio.Event()
        outside = asyncio.Event()  # of a transaction
        outside.set()
        ends_with = b""

        async def upwards() -> None:
            nonlocal ends_with
            while data := await reader.read(1 << 16):
                if self.cut_after is not None and self.cut_after in data:
                    self.cut_after = None
                    doomed.set()
                if (
                    self.withholds
                    and outside.is_set()
                    and (begin := re.search(rb"BEGIN|set_config\('statement_timeout', \$", data))
                ):
                    outside.clear()
                    self.withheld += 1
                    ends_with = b"COMMIT" if begin[0] == b"BEGIN" else SYNC
                if ends_with and ends_with in data:
                    outside.set()
                up_writer.write(data)
                await up_writer.drain()

        async def downwards() -> None:
            while data := await up_reader.read(1 << 16):
                if doomed.is_set():
                    self.cuts += 1
                    return
                await outside.wait()
                writer.write(data)
                await writer.drain()

        tasks = [asyncio.create_task(upwards()), asyncio.create_task(downwards())]
        with suppress(OSError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in (writer, up_writer):
            self._writers.discard(end)
            end.close()


@asynccontextmanager
async def proxy(dsn: str) -> AsyncIterator[Proxy]:
    """A proxy before the server of a DSN."""
    made = Proxy(dsn)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made.dsn = make_conninfo(dsn, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
    try:
        yield made
    finally:
        server.close()
        for writer in list(made._writers):
            writer.close()
