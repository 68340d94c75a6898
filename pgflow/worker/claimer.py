"""The claimer: when a worker asks for work, for how much, and how it waits until there is a reason to ask again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from pgflow.execution.engine.run import Run
from pgflow.model.claimed import Claimed
from pgflow.observe.worker_metrics import WorkerMetrics
from pgflow.store.database.background import BackgroundTask
from pgflow.store.database.backoff import Backoff
from pgflow.store.leasing.claims import Claims
from pgflow.worker.database_clock import DatabaseClock
from pgflow.worker.settings import Settings
from pgflow.worker.suspects import Suspects

log = logging.getLogger("pgflow.worker")

MAX_CLAIM = 500
"""Workflows that one claim takes, at most."""

FULL = 0.05
"""Seconds after which a worker that is nearly full claims even a few workflows, if more are waiting."""

LEFT = timedelta(milliseconds=60)
"""How long a claim leaves due runs to the worker that held them last, before this one looks again."""

SUSPECTS_WAIT = timedelta(milliseconds=50)
"""The pause between two looks whether this worker may take runs that are suspected of killing processes."""


class Claimer:
    """The part of a session that claims work.

    Args:
        claims: takes runs.
        names: the names of the workflows that the worker knows.
        settings: those of the worker.
        runs: what it has in memory.
        clock: the database's clock; each claim sets it.
        backlog: how many rows wait for their commit: while there are too many, nothing is claimed.
        prepare: awaited before the first claim.
        begin: executes what was taken.
        on_death: called when this part fails with an error of its own.
        metrics: told how long claims take; None: nobody counts.
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
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self._claims = claims
        self._names = names
        self._settings = settings
        self._runs = runs
        self._clock = clock
        self._backlog = backlog
        self._prepare = prepare
        self._begin = begin
        self._metrics = metrics
        self._suspects = Suspects(runs)
        self._suspected = 0
        """The highest number of suspicions among due runs that are suspected of killing processes; 0: there are none.
        """
        self._wanted = asyncio.Event()
        self._looking = False
        self._hinted: dict[UUID, None] = {}
        """New workflows that hints have named, and that no claim has asked for yet."""
        self._more_due = False
        """Whether the last claim left due work behind, or there was no room to claim at all."""
        self._due: datetime | None = None
        self._stopping = False
        self._background = BackgroundTask(self._claim, "pgflow claims", on_death)

    def start(self) -> None:
        """Begin to claim."""
        self._background.start()

    async def stop(self, seconds: float) -> None:
        """Claim no more. Wait so many seconds for a claim that is under way; what it takes after that is freed with the
        lease.
        """
        self._stopping = True
        task = self._background.task
        if task is not None:
            self._wanted.set()
            await asyncio.wait([task], timeout=seconds)
            task.cancel()
            await asyncio.wait([task])
            self._background.task = None

    def look(self) -> None:
        """There may be work: claim now."""
        self._looking = True
        self._wanted.set()

    def hint(self, id: UUID | None) -> None:
        """There is work (one new workflow, if the hint names its id): claim now."""
        left = len(self._claims.left)
        if left and left == len(self._settings.queues) * len(self._names):
            return  # for workers of newer builds; what they leave is found by its time
        if left or id is None or len(self._hinted) >= MAX_CLAIM:
            self.look()
        else:
            self._hinted[id] = None
            self._wanted.set()

    def note_due(self, when: datetime | None) -> None:
        """A workflow sleeps until `when`: claim then."""
        if when is not None and (self._due is None or when < self._due):
            self._due = when
            self._wanted.set()

    def make_room(self) -> None:
        """A workflow has left memory: claim now if more are waiting and there is enough room."""
        if self._more_due and self._has_room():
            self._wanted.set()

    async def _claim(self) -> None:
        settings = self._settings
        names = self._names
        backoff = Backoff(0.05, 5.0)
        quiet = False  # whether nothing but the poll asked for this claim
        try:
            self._suspected = await self._claims.warm_up(settings.queues, names)  # while the first deliveries are made
            self._suspects.see(self._suspected)
        except psycopg.Error as error:
            log.debug("warming up failed, and the first claim will report it if it lasts: %s", error)
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
                started = time.monotonic()
                try:
                    batch = await self._claims.claim(asked, settings.queues, names, sweep=sweep)
                except psycopg.Error as error:
                    pause = backoff.pause()
                    log.warning("claiming failed, the next attempt is in %.2f s: %s", pause, error)
                    self._wanted.clear()
                    await self._wait(pause)
                    continue
                backoff.reset()
                self._took(started)
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
        """Pause until there is a reason to claim again: a hint, a deadline, room in memory, or the poll alone (then
        true).
        """
        if more and self._has_room():
            return False
        until = time.monotonic() + (FULL if more else self._settings.poll)
        self._more_due, self._due = more, _earlier(self._due, next_due)
        while not self._stopping and not self._looking:
            seconds = until - time.monotonic()
            if self._due is not None and not more:
                seconds = min(seconds, self._clock.seconds_until(self._due))
            if seconds <= 0 or (more and self._has_room()):
                break
            self._wanted.clear()
            if self._hinted and not more:
                await self._claim_hinted()
            else:
                await self._wait(seconds)
        unasked = not (more or self._looking) and time.monotonic() >= until
        self._looking = self._more_due = False
        self._due = None
        return unasked

    async def _claim_hinted(self) -> None:
        """Claim the new workflows that hints have named, as far as there is room: cheaper than looking for all that is
        due.
        """
        room = min(self._settings.concurrency - len(self._runs), MAX_CLAIM)
        if len(self._hinted) > room or self._backlog() >= self._settings.max_backlog:
            self.look()
            return
        hinted, self._hinted = self._hinted, {}
        started = time.monotonic()
        try:
            batch = await self._claims.claim_hinted(list(hinted), self._settings.queues, self._names)
        except psycopg.Error as error:
            log.warning(
                "claiming the workflows that hints have named failed; the worker claims all that is due instead: %s",
                error,
            )
            self.look()
        else:
            self._took(started)
            if batch is not None:
                self._clock.observe(batch.now)
                await self._begin(batch.runs)
            if batch is None or len(batch.runs) < len(hinted):
                # Another worker has claimed the others, or holds their locks for a moment.
                self._due = _earlier(self._due, self._clock.now() + LEFT)

    async def _claim_suspected(self) -> None:
        """Claim as many runs that are suspected of killing processes as this process may hold together."""
        places = self._suspects.places(min(self._settings.concurrency - len(self._runs), MAX_CLAIM))
        if not any(places):
            return
        started = time.monotonic()
        try:
            batch = await self._claims.claim_suspected(places, self._settings.queues, self._names)
        except psycopg.Error as error:
            log.warning(
                "claiming workflows that are suspected of killing processes failed, the next attempt is in %g s: %s",
                SUSPECTS_WAIT.total_seconds(),
                error,
            )
            return
        self._took(started)
        self._clock.observe(batch.now)
        if batch.runs or places[2]:
            self._suspected = 0  # the next claim reports whether there are more
            self._suspects.see(0)
        await self._begin(batch.runs)
        self._suspects.took(
            self._runs[claimed.workflow_id] for claimed in batch.runs if claimed.workflow_id in self._runs
        )

    def _took(self, started: float) -> None:
        """A claim that was sent at that time was answered."""
        if self._metrics is not None:
            self._metrics.claim_took(time.monotonic() - started)

    def _has_room(self) -> bool:
        """Whether a claim is worth its round trip: a tenth of the places is free, and no run has to be alone."""
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
