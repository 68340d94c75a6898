"""Claiming: when a worker asks for work, how much, and what it does until there is reason to ask again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

import psycopg

from pgflow.execution.engine.run import Run
from pgflow.model.claimed import Claimed
from pgflow.store.database.connections import tell_of_death
from pgflow.store.leasing.claims import Claims
from pgflow.worker.database_clock import DatabaseClock
from pgflow.worker.settings import Settings
from pgflow.worker.suspects import Suspects

log = logging.getLogger("pgflow.worker")

MAX_CLAIM = 500
"""Workflows that one claim takes, at most."""

FULL = 0.05
"""Seconds after which a worker that is nearly full takes even a few workflows, if more are waiting."""

LEFT = timedelta(milliseconds=60)
"""After this the worker looks again at due runs that a claim has left to the worker that had them last."""

SUSPECTS_WAIT = timedelta(milliseconds=50)
"""After this the worker looks again whether it may take runs that deaths of processes are suspected of."""


class Claiming:
    """The part of a tenure that takes work.

    Args:
        claims: takes runs.
        names: of the workflows that the worker knows.
        settings: the worker's.
        runs: what it has in memory.
        clock: the database's, which each claim tells.
        backlog: rows that wait for their commit: too many, and nothing more is taken.
        prepare: awaited before the first claim.
        begin: executes what was taken.
        on_death: this part has ended by an error of its own.
    """

    def __init__(
        self,
        claims: Claims,
        names: Collection[str],
        settings: Settings,
        runs: Mapping[UUID, Run],
        clock: DatabaseClock,
        backlog: Callable[[], int],
        prepare: Callable[[], Awaitable[None]],
        begin: Callable[[list[Claimed]], Awaitable[None]],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._claims = claims
        self._names = names
        self._settings = settings
        self._runs = runs
        self._clock = clock
        self._backlog = backlog
        self._prepare = prepare
        self._begin = begin
        self._on_death = on_death
        self._suspects = Suspects(runs)
        self._suspected = 0
        """Whether runs that deaths of processes are suspected of are due: of how many the most suspected one is."""
        self._wanted = asyncio.Event()
        self._looking = False
        self._hinted: dict[UUID, None] = {}
        """New workflows that hints have named and no claim has looked for."""
        self._hungry = False
        self._due: datetime | None = None
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to claim."""
        self._task = asyncio.get_running_loop().create_task(self._claim(), name="pgflow claims")
        self._task.add_done_callback(partial(tell_of_death, then=self._on_death))

    async def stop(self, seconds: float) -> None:
        """Claim no more. Let a claim that is under way come back, for so many seconds; what it takes after that goes
        with the lease.
        """
        self._stopping = True
        task = self._task
        if task is not None:
            self._wanted.set()
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
            await asyncio.wait([task])
            self._task = None

    def look(self) -> None:
        """There may be work: claim now."""
        self._looking = True
        self._wanted.set()

    def hint(self, id: UUID | None) -> None:
        """There is work, one new workflow if its id is told: claim now."""
        if id is None or len(self._hinted) >= MAX_CLAIM:
            self.look()
        else:
            self._hinted[id] = None
            self._wanted.set()

    def note_due(self, when: datetime | None) -> None:
        """A workflow sleeps until then: claim then."""
        if when is not None and (self._due is None or when < self._due):
            self._due = when
            self._wanted.set()

    def make_room(self) -> None:
        """A workflow has left memory: claim now if more are waiting, and it is worth it."""
        if self._hungry and self._roomy():
            self._wanted.set()

    async def _claim(self) -> None:
        settings = self._settings
        names = self._names
        pause = 0.05
        quiet = False  # whether nobody waits for this claim
        try:
            self._suspected = await self._claims.warm_up(settings.queues, names)  # while the mail is looked at
            self._suspects.see(self._suspected)
        except psycopg.Error as error:
            log.debug("the first claim will meet this again: %s", error)
        await self._prepare()
        while not self._stopping:
            if self._suspected:
                await self._claim_suspected()
            room = settings.concurrency - len(self._runs)
            more = False
            next_due: datetime | None = None
            if room > 0 and self._backlog() < settings.max_backlog and not self._suspects.apart:
                asked = min(room, MAX_CLAIM)
                self._hinted.clear()  # what hints have named is due and will be found
                sweep = quiet and self._claims.sweep_is_due(busy=False) or self._claims.sweep_is_due(busy=True)
                try:
                    batch = await self._claims.claim(asked, settings.queues, names, sweep=sweep)
                except psycopg.Error as error:
                    log.warning("claiming failed and is tried again in %.2f s: %s", pause, error)
                    self._wanted.clear()
                    await self._wait(pause)
                    pause = min(pause * 2, 5.0)
                    continue
                pause = 0.05
                self._clock.observe(batch.now)
                await self._begin(batch.runs)
                more = len(batch.runs) >= asked
                before, self._suspected = self._suspected, batch.suspected
                self._suspects.see(batch.suspected)
                if self._suspected and not before:
                    continue
                if not (more or sweep) and self._claims.sweep_is_due(busy=False):
                    quiet = True
                    continue
                next_due = batch.next_wake_at
                if batch.left and not more:
                    next_due = _earlier(next_due, batch.now + LEFT)
                if self._suspected:
                    next_due = _earlier(next_due, batch.now + SUSPECTS_WAIT)
            else:
                more = True
            quiet = await self._rest(more, next_due)

    async def _rest(self, more: bool, next_due: datetime | None) -> bool:
        """Pause until there is reason to claim again: a hint, a deadline, room in memory, or (true) nothing but the
        poll.
        """
        if more and self._roomy():
            return False
        until = time.monotonic() + (FULL if more else self._settings.poll)
        self._hungry, self._due = more, _earlier(self._due, next_due)
        while not self._stopping and not self._looking:
            seconds = until - time.monotonic()
            if self._due is not None and not more:
                seconds = min(seconds, self._clock.seconds_until(self._due))
            if seconds <= 0 or (more and self._roomy()):
                break
            self._wanted.clear()
            if self._hinted and not more:
                await self._claim_hinted()
            else:
                await self._wait(seconds)
        unasked = not (more or self._looking) and time.monotonic() >= until
        self._looking = self._hungry = False
        self._due = None
        return unasked

    async def _claim_hinted(self) -> None:
        """Take the new workflows that hints have named, as far as there is room: cheaper than to look
        for what is due.
        """
        room = min(self._settings.concurrency - len(self._runs), MAX_CLAIM)
        if len(self._hinted) > room or self._backlog() >= self._settings.max_backlog:
            self.look()
            return
        hinted, self._hinted = self._hinted, {}
        try:
            batch = await self._claims.claim_hinted(list(hinted), self._settings.queues, self._names)
        except psycopg.Error as error:
            log.warning("claiming what a hint has named failed, a look for all that is due follows: %s", error)
            self.look()
        else:
            if batch is not None:
                self._clock.observe(batch.now)
                await self._begin(batch.runs)
            if batch is None or len(batch.runs) < len(hinted):
                # Somebody else has taken the others, or has them locked for a moment.
                self._due = _earlier(self._due, self._clock.now() + LEFT)

    async def _claim_suspected(self) -> None:
        """Take as many of the runs that deaths of processes are suspected of as may be here together."""
        places = self._suspects.places(min(self._settings.concurrency - len(self._runs), MAX_CLAIM))
        if not any(places):
            return
        try:
            batch = await self._claims.claim_suspected(places, self._settings.queues, self._names)
        except psycopg.Error as error:
            log.warning(
                "claiming what deaths are suspected of failed, the next look is in %g s: %s",
                SUSPECTS_WAIT.total_seconds(),
                error,
            )
            return
        self._clock.observe(batch.now)
        if batch.runs or places[2]:
            self._suspected = 0  # the next claim tells whether there are more
            self._suspects.see(0)
        await self._begin(batch.runs)
        self._suspects.took(
            self._runs[claimed.workflow_id] for claimed in batch.runs if claimed.workflow_id in self._runs
        )

    def _roomy(self) -> bool:
        """Whether a claim is worth its round trip: a tenth of the places is free."""
        concurrency = self._settings.concurrency
        return not self._suspects.apart and concurrency - len(self._runs) >= max(1, concurrency // 10)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wanted.wait()
        except TimeoutError:
            pass


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)
