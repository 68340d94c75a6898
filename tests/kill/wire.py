"""A wire between workers and the server that does what networks do: it cuts, delays, freezes, and delivers late.

The worst of it is `late`: the client is cut off in the middle of a write, and what it had sent reaches the server
seconds later, when it has long been written again on another connection. No order that a client can rely on holds any
more.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from psycopg.conninfo import conninfo_to_dict, make_conninfo

LATE = (0.2, 4.0)
"""Seconds by which what was sent on a cut connection comes late, at least and at most."""

FATES = {"late": 6, "unanswered": 3, "torn": 2, "frozen": 1, "slow": 3}
"""What may befall a connection, and how often."""

_RESET = struct.pack("ii", 1, 0)


class Wire:
    """Use `wire` to have one.

    Args:
        target: the DSN of the server.
        mean_peace: seconds that a connection is left alone, on average.
        seed: of what befalls whom.
    """

    def __init__(self, target: str, mean_peace: float, seed: int) -> None:
        given = conninfo_to_dict(target)
        self._host, self._port = str(given.get("host") or "127.0.0.1"), int(given.get("port") or 5432)
        self._target, self._mean_peace, self._chance = target, mean_peace, random.Random(seed)
        self.befell: Counter[str] = Counter()
        """How many connections each fate has befallen."""
        self.calm = False
        """Whether nothing befalls anybody any more."""
        self.dsn = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="wire", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        """End everything that is under way."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.dsn = make_conninfo(self._target, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable")
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            if self._host.startswith("/"):
                up_reader, up_writer = await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
            else:
                up_reader, up_writer = await asyncio.open_connection(self._host, self._port)
            try:
                await self._carry(reader, writer, up_reader, up_writer)
            finally:
                up_writer.close()
        writer.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        """Carry what one client sends, until something befalls it for good."""
        flows = asyncio.Event()
        flows.set()
        back = asyncio.create_task(self._carry_back(up_reader, writer, flows))
        clock = asyncio.get_running_loop()
        strikes_at = clock.time() + self._chance.expovariate(1 / self._mean_peace)
        try:
            while data := await reader.read(1 << 20):
                if self.calm or clock.time() < strikes_at:
                    up_writer.write(data)
                    await up_writer.drain()
                    continue
                strikes_at = clock.time() + self._chance.expovariate(1 / self._mean_peace)
                fate = self._chance.choices(list(FATES), list(FATES.values()))[0]
                self.befell[fate] += 1
                if fate == "slow":
                    await asyncio.sleep(self._chance.random() * 0.3)
                elif fate == "frozen":
                    flows.clear()
                    await asyncio.sleep(self._chance.uniform(0.5, 3))
                    flows.set()
                elif fate == "torn":
                    up_writer.write(data[: self._chance.randrange(len(data))])
                    self._cut(writer)
                    return
                else:
                    back.cancel()
                    await asyncio.wait([back])
                    data += await self._rest(reader)
                    if fate == "late":
                        self._cut(writer)
                        await asyncio.sleep(self._chance.uniform(*LATE))
                    up_writer.write(data)
                    await up_writer.drain()
                    with suppress(TimeoutError):  # it has been executed, or waits for a lock
                        async with asyncio.timeout(2):
                            while await up_reader.read(65536):
                                pass
                    self._cut(writer)
                    return
                up_writer.write(data)
                await up_writer.drain()
        finally:
            back.cancel()
            await asyncio.wait([back])

    async def _carry_back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flows: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                await flows.wait()
                writer.write(data)
                await writer.drain()
            writer.close()

    async def _rest(self, reader: asyncio.StreamReader) -> bytes:
        """What else the client is just sending."""
        found = b""
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.02):
                    data = await reader.read(1 << 20)
                if not data:
                    break
                found += data
        return found

    def _cut(self, writer: asyncio.StreamWriter) -> None:
        """Reset the client's connection: it learns at once, and nothing of what it was told."""
        wire: socket.socket | None = writer.get_extra_info("socket")
        if wire is not None and wire.fileno() >= 0:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


@contextmanager
def wire(dsn: str, *, mean_peace: float, seed: int) -> Iterator[Wire]:
    """A wire to a server, in a thread of its own.

    Example:
        with wire(dsn, mean_peace=3, seed=1) as between:
            pgflow.Worker(between.dsn, ...)
    """
    made = Wire(dsn, mean_peace, seed)
    made.start()
    try:
        yield made
    finally:
        made.stop()
