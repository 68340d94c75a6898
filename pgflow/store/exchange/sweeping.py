"""What one worker at a time does for all, in short transactions: it removes signals that were taken or dropped,
audit rows, and workflows that have been kept long enough (`retaining.py`), and enters into `ends` and
`finders` what was before these tables were there.

    not due --time--> due --taken by one worker, for a lease--> walks through the table, page by page --the end--> not
    due
                                  '--its worker dies: the lease runs out, and another goes on from its place

There is no index on when a signal was taken: it would cost every signal more than it costs to look at each once in a
while. The table is walked through by the numbers of its pages, a few at a time and with long pauses in between, so that
other work is not slowed down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

import psycopg

from pgflow import faults
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line, quoted
from pgflow.store.exchange.retaining import Retaining

_log = logging.getLogger("pgflow.store")

AUDIT_KEEP = 400 * 86_400.0
"""Seconds that a row of the audit log is kept by default."""

ROWS = 1_000
"""The most rows of the audit table that one statement removes."""

FEW = 100
"""Live workflows whose histories one statement reads, at most."""

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
        audit_keep: Seconds that a row of the audit table is kept.
        declared: How long the worker's code says that its workflows are kept, in seconds, by name; None: it does not.

    Example:
        await Sweeper(database, keep=86_400).run()
    """

    def __init__(
        self,
        database: Database,
        keep: float,
        audit_keep: float = AUDIT_KEEP,
        declared: Mapping[str, float | None] | None = None,
    ) -> None:
        self._database = database
        self._line = Line(database, "sweeper")
        self._holder = uuid4()
        self._keep = keep
        self._audit_keep = audit_keep
        self._audit_pause = _pause(audit_keep)
        self.pause = _pause(keep)
        """Seconds between two walks through the signals."""
        self.removed = 0
        """Signals removed so far."""
        self.retaining = Retaining(self._ask, declared or {})
        """What removes workflows."""
        self._wanted = asyncio.Event()

    def hint(self) -> None:
        """Somebody has said that there is something to do."""
        self._wanted.set()

    async def run(self) -> None:
        """Take part until it is cancelled."""
        backoff = Backoff(self.pause * 2, LATEST)
        wait = random.random() * min(self.pause, 10.0)  # workers that start together need not all look at once
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wanted.wait()
                self._wanted.clear()
                try:
                    wait = await self.look()
                    backoff.reset()
                except psycopg.Error as error:
                    wait = backoff.pause()
                    _log.warning("removing what is old failed, the next try is in %g s: %s", wait, error)
                if wait > LEASE:
                    await self._line.drop()
        finally:
            await self._line.drop()

    async def look(self) -> float:
        """Do what is due, unless another worker does it; seconds until the next look.

        Raises:
            psycopg.Error: The database refused.
        """
        await self.retaining.declare()
        return min(
            await self._look_at_signals(),
            await self._look_at_audit(),
            await self._look_at_ends(),
            await self._look_at_finders(),
            await self._look_at_retention(),
        )

    async def _look_at_signals(self) -> float:
        """Walk through the table of signals."""
        place, due, pages = await self._take("signals")
        if place is None:
            return _soon(due, self.pause)
        while place < pages:
            began = time.monotonic()
            until = min(place + PAGES, pages)
            rows = await self._ask(
                "chore_signals",
                first=f"({place},0)",
                behind=f"({until},0)",
                until=until,
                keep=self._keep,
                moment=MOMENT,
            )
            if not rows:
                return self.pause  # it took too long, and another worker has the chore now
            ((place, removed),) = rows
            self.removed += removed
            worked = time.monotonic() - began
            await faults.reach("sweeper.after_pages")
            await asyncio.sleep(min(worked / SHARE, LEASE / 4))
        return await self._done("signals", self.pause)

    async def _look_at_audit(self) -> float:
        """Remove old rows of the audit table, which has an index on their time."""
        place, due, _ = await self._take("audit")
        if place is None:
            return _soon(due, self._audit_pause)
        removed = ROWS
        while removed == ROWS:
            began = time.monotonic()
            rows = await self._ask("chore_audit", keep=self._audit_keep, rows=ROWS)
            if not rows:
                return self._audit_pause
            ((removed,),) = rows
            worked = time.monotonic() - began
            await faults.reach("sweeper.after_audit")
            await asyncio.sleep(min(worked / SHARE, LEASE / 4))
        return await self._done("audit", self._audit_pause)

    async def _look_at_ends(self) -> float:
        """Enter what ended before `ends` was there, once: walk through the workflows, and then through the runs."""
        place, due, pages = await self._take("ends", "workflows")
        if place is None:
            return _soon(due, LATEST)
        while place < pages:
            began = time.monotonic()
            until = min(place + PAGES, pages)
            rows = await self._ask("chore_ends", first=f"({place},0)", behind=f"({until},0)", until=until)
            if not rows:
                return LATEST  # it took too long, and another worker has the chore now
            place = until
            worked = time.monotonic() - began
            await faults.reach("sweeper.after_ends")
            await asyncio.sleep(min(worked / SHARE, LEASE / 4))
        last: UUID | None = None
        while True:
            began = time.monotonic()
            rows = await self._ask("chore_runs", after=last, rows=ROWS)
            if not rows:
                return LATEST
            ((last,),) = rows
            if last is None:
                break
            worked = time.monotonic() - began
            await faults.reach("sweeper.after_runs")
            await asyncio.sleep(min(worked / SHARE, LEASE / 4))
        await self._ask("chore_gone", chore="ends")
        return LATEST

    async def _look_at_finders(self) -> float:
        """Enter who found which unique workflow before `finders` was there, once: until then nothing is removed."""
        place, due, _ = await self._take("finders")
        if place is None:
            return _soon(due, LATEST)
        last: UUID | None = None
        while True:
            began = time.monotonic()
            rows = await self._ask("chore_finders", after=last, rows=FEW)
            if not rows:
                return LATEST
            ((last,),) = rows
            if last is None:
                break
            worked = time.monotonic() - began
            await faults.reach("sweeper.after_finders")
            await asyncio.sleep(min(worked / SHARE, LEASE / 4))
        await self._ask("chore_gone", chore="finders")
        return LATEST

    async def _look_at_retention(self) -> float:
        """Remove workflows that have been kept long enough, if anybody has said how long that is."""
        place, due, _ = await self._take("retention")
        if place is None:
            return _soon(due, LATEST)
        pause = await self.retaining.remove()
        return LATEST if pause is None else await self._done("retention", pause)

    async def _take(self, chore: str, table: str = "signals") -> tuple[int | None, float, int]:
        """Where to go on, None if it is not to be done now; seconds until it is due, pages of a table."""
        schema = quoted(self._database.schema).replace("'", "''").encode()
        parts = {b"{schema_text}": schema, b"{table}": table.encode()}
        ((place, due, pages),) = await self._ask("chore_take", parts, chore=chore)
        return place, float(due), pages

    async def _done(self, chore: str, pause: float) -> float:
        await self._ask("chore_done", chore=chore, place=0, pause=pause)
        return pause * random.uniform(1.0, 1.2)

    async def _ask(
        self, name: str, parts: Mapping[bytes, bytes] | None = None, /, **asked: Any
    ) -> list[tuple[Any, ...]]:
        text = self._database.statement(name)
        for mark, part in (parts or {}).items():
            text = text.replace(mark, part)
        connection = await self._line.get()
        cursor = await connection.execute(text, {"holder": self._holder, "lease": LEASE, **asked}, prepare=True)
        return await cursor.fetchall() if cursor.description else []


def _pause(keep: float) -> float:
    return min(max(keep / 24, SOONEST), LATEST)


def _soon(due: float, pause: float) -> float:
    return min(max(due, SOONEST), pause) * random.uniform(1.0, 1.2)
