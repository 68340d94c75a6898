"""Removal of signals that were taken, or dropped, some time ago: one worker at a time, in short transactions.

    not due --time--> due --taken by one worker, for a lease--> walks through the table, page by page --the end--> not
    due
                                  '--its worker dies: the lease runs out, and another goes on from its place

There is no index on when a signal was taken: it would cost every signal more than it costs to look at each once in a
while. The table is walked through by the numbers of its pages, a few at a time and with long pauses in between, so that
nobody notices.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from uuid import uuid4

import psycopg

from pgflow import faults
from pgflow.store.database.connections import Database, Line, quoted

_log = logging.getLogger("pgflow.store")

PAGES = 64
"""Pages of the table that one statement goes through."""

LEASE = 20.0
"""Seconds after its last statement after which another worker goes on."""

MOMENT = 15.0
"""Seconds that a signal stays after it was sent, whatever else is said: longer than a client goes on sending one whose
answer was lost.
"""

SHARE = 0.1
"""The share of the time that one who walks through the table works."""

SOONEST, LATEST = 1.0, 3600.0
"""Seconds between two walks: a small part of the time that signals are kept, within these bounds."""


class Sweeper:
    """Takes part in the removal, for one worker.

    Args:
        database: Where the signals are.
        keep: Seconds that a signal is kept after it was taken or dropped.

    Example:
        await Sweeper(database, keep=86_400).run()
    """

    def __init__(self, database: Database, keep: float) -> None:
        self._database = database
        self._line = Line(database, "sweeper")
        self._holder = uuid4()
        self._keep = keep
        self.pause = min(max(keep / 24, SOONEST), LATEST)
        """Seconds between two walks."""
        self.removed = 0
        """Signals removed so far."""

    async def run(self) -> None:
        """Take part until it is cancelled."""
        failed = 0
        wait = random.random() * min(self.pause, 10.0)  # workers that start together need not all look at once
        try:
            while True:
                await asyncio.sleep(wait)
                try:
                    wait = await self.look()
                    failed = 0
                except psycopg.Error as error:
                    failed += 1
                    wait = min(self.pause * 2**failed, LATEST)
                    _log.warning("removing old signals failed, the next try is in %g s: %s", wait, error)
                if wait > LEASE:
                    await self._line.drop()
        finally:
            await self._line.drop()

    async def look(self) -> float:
        """Walk through the table if it is time to, and nobody else does; seconds until the next look.

        Raises:
            psycopg.Error: The database refused.
        """
        text, holder = self._database.statement, {"holder": self._holder, "lease": LEASE}
        connection = await self._line.get()
        cursor = await connection.execute(self._take(), holder, prepare=True)
        ((place, due, pages),) = await cursor.fetchall()
        if place is None:
            return min(max(float(due), SOONEST), self.pause) * random.uniform(1.0, 1.2)
        while place < pages:
            began = time.monotonic()
            until = min(place + PAGES, pages)
            asked = {
                **holder,
                "first": f"({place},0)",
                "behind": f"({until},0)",
                "until": until,
                "keep": self._keep,
                "moment": MOMENT,
            }
            cursor = await connection.execute(text("chore_signals"), asked, prepare=True)
            rows = await cursor.fetchall()
            if not rows:
                return self.pause  # it took too long, and another has it now
            ((place, removed),) = rows
            self.removed += removed
            worked = time.monotonic() - began
            await faults.reach("sweeper.after_pages")
            await asyncio.sleep(min(worked / SHARE, LEASE / 4))
        await connection.execute(
            text("chore_done"), {"holder": self._holder, "place": 0, "pause": self.pause}, prepare=True
        )
        return self.pause * random.uniform(1.0, 1.2)

    def _take(self) -> bytes:
        schema = quoted(self._database.schema).replace("'", "''")
        return self._database.statement("chore_take").replace(b"{schema_text}", schema.encode())
