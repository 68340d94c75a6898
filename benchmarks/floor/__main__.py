"""`python -m benchmarks.floor DSN`: works on what is dispatched until SIGTERM, as a worker does."""

from __future__ import annotations

import asyncio
import signal
import sys

import psycopg

from benchmarks.floor.loop import Floor
from pgflow.store.database.channels import wake_channel


async def main(dsn: str) -> None:
    """Drain whatever is there at every notification."""
    listener = await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name="floor listener")
    floor = await Floor.connect(dsn)
    drained = asyncio.create_task(serve(listener, floor))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drained.cancel)
    try:
        await drained
    except asyncio.CancelledError:
        pass
    await floor.close()
    await listener.close()


async def serve(listener: psycopg.AsyncConnection[tuple[object, ...]], floor: Floor) -> None:
    """Work whenever somebody dispatches."""
    await listener.execute(f"LISTEN {wake_channel('pgflow')}")
    async for _ in listener.notifies():
        await floor.drain()


asyncio.run(main(sys.argv[1]))
