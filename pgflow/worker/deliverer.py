"""The deliverer: delivers what is sent to workflows, and hands it to the runs in this worker's memory.

A hint names the worker that holds the receiver, or held it last: that one delivers at once. The others look a moment
later, in case it is gone, and all look from time to time, since hints may be lost.

Deadlines of workflows pass here as well: what is due is cancelled by one statement, and the runs in memory hear of it
like of any request to cancel. Each look learns when the next one is due, and hints tell of those that come before that.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from uuid import UUID

import psycopg

from pgflow.model.claimed import Arrived
from pgflow.observe.log_records import log_failed_workflow
from pgflow.store.database.background import BackgroundTask
from pgflow.store.database.backoff import Backoff
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.notify.notifier import Notifier

log = logging.getLogger("pgflow.worker")

PATIENCE = 0.1
"""Seconds after which a worker delivers what a hint announced to another worker."""

AGAIN = 0.005
"""Seconds until receivers that were locked are tried again, the first time; each further time it doubles."""

LONGEST_PAUSE = 5.0
"""Seconds between two attempts when the database refuses, at most."""


BETWEEN_DEADLINES = 0.02
"""Seconds between two looks for deadlines, at least: those that fall due together are passed together."""

GONE_PAUSE = 0.5
"""Seconds between two looks for workflows that were ended elsewhere, at least."""


class Deliverer:
    """The delivery loop of one worker.

    Args:
        queue: the store's side.
        notifier: sends hints about the runs that it has woken.
        poll: the longest pause between two looks without a hint, in seconds.
        seen: the last place in the mailbox that each run in memory has seen.
        pausing: the runs in memory that have been asked to pause.
        arrive: hands news to a run in memory.
        gone: called with a workflow in memory that somebody has ended.
        woken: called when runs were woken that this worker may claim.
        on_death: called when it fails with an error of its own.
    """

    def __init__(
        self,
        queue: DeliveryQueue,
        notifier: Notifier,
        poll: float,
        seen: Callable[[], Mapping[UUID, int]],
        pausing: Callable[[], Collection[UUID]],
        arrive: Callable[[Arrived], None],
        gone: Callable[[UUID], None],
        woken: Callable[[], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._queue = queue
        self._notifier = notifier
        self._poll = poll
        self._seen = seen
        self._pausing = pausing
        self._arrive = arrive
        self._gone = gone
        self._misses_some = False
        """Whether some of the workflows in memory may have been ended elsewhere."""
        self._looked_for_gone = 0.0
        self._woken = woken
        self._due = self._next_deadline = time.monotonic()
        self._looked_for_deadlines = -math.inf
        self._attend = True
        self._hinted = False
        self._again = Backoff(AGAIN, self._poll)
        self._changed = asyncio.Event()
        self._background = BackgroundTask(self._run, "pgflow mail", on_death)
        self.looked = asyncio.Event()
        """Set once it has looked for the first time: workflows that are claimed after that know what was sent before.
        """

    def start(self) -> None:
        """Begin to deliver."""
        self._background.start()

    async def close(self) -> None:
        """Stop delivering; other workers go on."""
        await self._background.stop()
        await self._queue.close()

    def look(self, *, mine: bool = True, hinted: bool = False) -> None:
        """Something was sent: deliver now, or in a moment if another worker should do it first.

        Args:
            mine: whether this worker should deliver it.
            hinted: whether a hint from elsewhere says so: its sender may have delivered it already, and then the
                receiver may have been woken as well.
        """
        if mine:
            self._attend = True
            self._hinted = self._hinted or hinted
        due = time.monotonic() + (0.0 if mine else PATIENCE * random.uniform(1.0, 2.0))
        if due < self._due:
            self._due = due
            self._changed.set()

    def expect(self, seconds: float) -> None:
        """A deadline was set, so many seconds from now."""
        due = time.monotonic() + seconds
        if due < self._next_deadline:
            self._next_deadline = due
            self._changed.set()

    async def _run(self) -> None:
        backoff = Backoff(0.05, LONGEST_PAUSE)
        while True:
            await self._until_due()
            attend, self._attend = self._attend, False
            hinted, self._hinted = self._hinted, False
            self._due = time.monotonic() + self._poll
            try:
                await self._deliver(attend, hinted)
            except psycopg.Error as error:
                pause = backoff.pause()
                log.warning("delivering signals failed, the next attempt is in %.2f s: %s", pause, error)
                self._attend = True
                self._hinted = self._hinted or hinted
                self._due = self._next_deadline = time.monotonic() + pause
            else:
                backoff.reset()
            self.looked.set()

    async def _until_due(self) -> None:
        while True:
            deadlines = max(self._next_deadline, self._looked_for_deadlines + BETWEEN_DEADLINES)
            left = min(self._due, deadlines) - time.monotonic()
            if left <= 0:
                return
            self._changed.clear()
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                self._attend = True

    async def _deliver(self, attend: bool, hinted: bool) -> None:
        delivery = await self._queue.deliver()
        if delivery.passed_over:
            self._due = min(self._due, time.monotonic() + self._again.pause())
        else:
            self._again.reset()
        for arrived in delivery.arrived:
            self._arrive(arrived)
        if delivery.unclaimed or time.monotonic() >= self._next_deadline:
            attend = await self._pass_deadlines() or attend  # behind what was sent: a request to cancel goes first
        if delivery.woken:
            self._woken()
            for queue in delivery.woken:
                self._notifier.wake(queue)
        for owner in delivery.owners:
            self._notifier.mail(owner)
        if (attend or delivery.moved) and (seen := self._seen()):
            news = await self._queue.attend(seen, self._pausing())
            for arrived in news:
                self._arrive(arrived)
            self._misses_some = self._misses_some or hinted  # with news too: hints come together, and are not counted
            if self._misses_some:
                await self._look_for_gone(seen)
        if hinted:
            # A run that was in memory when the hint was sent may have suspended since: its own write made it pending.
            self._woken()

    async def _pass_deadlines(self) -> bool:
        """Cancel what is due by its deadline; whether there was anything."""
        self._looked_for_deadlines = time.monotonic()
        self._next_deadline = self._looked_for_deadlines + self._poll
        found = await self._queue.pass_deadlines()
        if found.next_in is not None:
            # What somebody has locked is due, and is tried again after the pause.
            self._next_deadline = min(self._next_deadline, time.monotonic() + max(found.next_in, AGAIN))
        for one in found.passed:
            if one.error is not None:
                log_failed_workflow(one, one.error)
        if any(not one.ended for one in found.passed):
            self._woken()
        return bool(found.passed)

    async def _look_for_gone(self, held: Collection[UUID]) -> None:
        """A hint may have been of a workflow that this worker runs and somebody has ended. Most hints are of something
        else: so this looks once in a while, a little later if it is not time yet, and again if it could not look.
        """
        again = self._looked_for_gone + GONE_PAUSE
        if time.monotonic() < again:
            self._attend = True
            self._due = min(self._due, again)
            return
        self._looked_for_gone = time.monotonic()
        gone = await self._queue.gone(held)
        self._misses_some = False
        for id in gone:
            self._gone(id)
