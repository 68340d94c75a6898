"""Questions of workflows how others have ended, gathered: one statement asks for many children of many parents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from uuid import UUID

import psycopg

from pgflow.model.commands import Standing
from pgflow.model.writes import Inquiry
from pgflow.store.database.background import BackgroundTask
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line, is_lost

_log = logging.getLogger("pgflow.store")

AT_ONCE = 5_000
"""The most workflows that one statement asks about."""

FIRST_PAUSE = 0.01
"""Seconds before a statement is repeated; doubled after each try."""

LONGEST_PAUSE = 1.0
"""The most seconds before a statement is repeated."""

BYTES = 16 << 20
"""The most bytes of outputs that one statement returns, unless a single workflow has more."""


class Inquiries:
    """The loop that asks, for one worker on one event loop.

    Example:
        inquiries = Inquiries(database)
        inquiries.start()
        inquiries.ask(inquiry)        # inquiry.on_answer is called
        await inquiries.close()
    """

    def __init__(self, database: Database, *, on_death: Callable[[BaseException], None] | None = None) -> None:
        self._database = database
        self._line = Line(database, "inquiries")
        self._waiting: list[Inquiry] = []
        self._arrived = asyncio.Event()
        self._background = BackgroundTask(self._run, "pgflow inquiries", on_death)

    def start(self) -> None:
        """Begin to ask; to be called on the event loop that the callbacks belong to."""
        self._background.start()

    def ask(self, inquiry: Inquiry) -> None:
        """Take one question, and put it when its time has come."""
        if inquiry.wait > 0:
            asyncio.get_running_loop().call_later(inquiry.wait, self._put, inquiry)
        else:
            self._put(inquiry)

    def _put(self, inquiry: Inquiry) -> None:
        self._waiting.append(inquiry)
        self._arrived.set()

    async def close(self) -> None:
        """Stop: what still waits is not answered."""
        await self._background.stop()
        await self._line.drop()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            inquiries, self._waiting = self._waiting, []
            ids = list(dict.fromkeys(id for inquiry in inquiries for id in inquiry.ids))
            found: dict[UUID, Standing | None] = {}
            while ids:
                part, ids = ids[:AT_ONCE], ids[AT_ONCE:]
                ids = await self._look(part, found) + ids
            for inquiry in inquiries:
                answer = {id: found[id] for id in inquiry.ids if id in found}
                try:
                    inquiry.on_answer(inquiry, answer)
                except Exception:
                    # One run's callback must not keep the others from hearing of theirs.
                    _log.exception("an inquiry's callback failed")

    async def _look(self, ids: Sequence[UUID], found: dict[UUID, Standing | None]) -> list[UUID]:
        """Ask of these workflows; those that have ended, but whose output did not fit in, come back."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        parameters = {"ids": list(ids), "bytes": BYTES}
        while True:
            try:
                cursor = await (await self._line.get()).execute(
                    self._database.statement("inquire"), parameters, prepare=True
                )
                rows = await cursor.fetchall()
            except psycopg.Error as error:
                _log.warning("asking how workflows have ended failed and is tried again: %s", error)
                if (connection := self._line.current) is None or is_lost(error, connection):
                    await self._line.drop()
                await asyncio.sleep(backoff.spread_pause())
                continue
            again = []
            for number, name, status, fits, output, error_text in rows:
                id = ids[number]
                if name is None:
                    found[id] = None
                elif fits:
                    found[id] = Standing(id, name, status, output, error_text)
                else:
                    again.append(id)
            return again
