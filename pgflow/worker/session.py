"""A session of a worker: the time between a worker's registration and the loss, or the return, of its lease.

Everything that is bound to the worker's id lives and ends here: its journal, its claims, its loops, the runs in its
memory. When the lease can no longer be trusted, everything is dropped without a write, and the worker starts a new
session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from pgflow.definitions.descriptors import Registry
from pgflow.errors import LeaseLost
from pgflow.execution.activities.activity_call import ActivityCall
from pgflow.execution.activities.resources import Resources
from pgflow.execution.activities.runner import ActivityRunner
from pgflow.execution.engine.run import Run
from pgflow.execution.execute import execute
from pgflow.model.claimed import Arrived, Claimed
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome, Released, Suspended
from pgflow.model.rows import Message, RunKey
from pgflow.observe import worker_metrics
from pgflow.observe.meters import Family
from pgflow.observe.worker_metrics import WorkerMetrics
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database
from pgflow.store.exchange.crossing_batch import Crossings
from pgflow.store.exchange.deliveries import DeliveryQueue
from pgflow.store.journal.forgetting import LoopAdvancer
from pgflow.store.journal.journal import Journal
from pgflow.store.journal.transactions import Transactions
from pgflow.store.leasing.claims import Claims
from pgflow.store.leasing.fencing import MovingFence
from pgflow.store.leasing.newer_builds import QueueAndName, described
from pgflow.store.notify.notifier import Notifier
from pgflow.worker.claimer import Claimer
from pgflow.worker.database_clock import DatabaseClock
from pgflow.worker.deliverer import Deliverer
from pgflow.worker.holding import held
from pgflow.worker.run_cache import RunCache
from pgflow.worker.scheduler import Scheduler
from pgflow.worker.settings import Settings

log = logging.getLogger("pgflow.worker")

LAST_WRITES = 5.0
"""Seconds that the last writes of a stopping worker may take."""


class WorkerSession:
    """One registration of a worker, and the `Host` of its runs.

    Args:
        database: where everything is written.
        fence: the registration's; every write checks it.
        registry: the workflows that the worker knows.
        settings: those of the worker.
        notifier: sends hints after commits.
        trusted_until: until when, on the monotonic clock, this worker can be sure of its lease; a time in the past
            while that is in doubt.
        on_death: called when a part that should never end has failed with an error of its own: drop the session.
        resources: what activities share.
        metrics: told of what happens; None: nobody counts.
    """

    def __init__(
        self,
        database: Database,
        fence: MovingFence,
        registry: Registry,
        settings: Settings,
        notifier: Notifier,
        trusted_until: Callable[[], float],
        on_death: Callable[[BaseException], None],
        resources: Resources,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self.fence = fence
        fence.held, fence.moved = lambda: held(self.runs, self._cold), self._moved
        self.runs: dict[UUID, Run] = {}
        self._cold: list[Claimed] = []
        """Claimed workflows whose history is being read."""
        self.steps = 0
        """Rows of history committed so far."""
        self._registry = registry
        self._metrics = metrics
        self._settings = settings
        self._notifier = notifier
        self._loop = asyncio.get_running_loop()  # on a stage a run's own loop is the running one
        self._clock = DatabaseClock()
        self._scheduler = Scheduler(on_death)
        self.describe, self.interrupt = self._scheduler.describe, self._scheduler.interrupt
        self.observe_time = self._clock.observe
        """Learn from a commit what time it is."""
        self.schedule = self._scheduler.schedule
        """Have a run pumped in a later callback."""
        self.limits = settings.limits
        """Bounds of one workflow."""
        self.journal = Journal(
            database,
            fence,
            hints=notifier,
            on_batch=self._written,
            on_ends_told=self.asked,
            on_death=on_death,
            metrics=metrics,
        )
        """Where runs hand over rows and outcomes."""
        self.loops = LoopAdvancer(database, fence, on_death=on_death, metrics=metrics)
        """Where runs hand over the forgetting of turns."""
        self.crossings = Crossings(
            database, fence, self._started, self._sent, lambda seconds: self.expect(seconds), on_death=on_death
        )
        """Where runs hand over what they do to other workflows."""
        self._claims = Claims(database, fence, settings.limits.other_arguments is not None)
        self._claimer = Claimer(
            self._claims,
            registry.names,
            settings,
            self.runs,
            self._clock,
            lambda: self.journal.backlog,
            self._prepare,
            self._begin,
            on_death,
            metrics,
        )
        self.look, self.hint = self._claimer.look, self._claimer.hint
        self._run_cache = RunCache(settings.cached)
        self._deliverer = Deliverer(
            DeliveryQueue(database, fence),
            notifier,
            settings.poll,
            self._seen,
            self._pausing,
            self._arrive,
            self._terminated,
            self.look,
            on_death,
        )
        self.expect = self._deliverer.expect
        """Learn that a deadline was set, so many seconds from now."""
        self._on_death = on_death
        self._threads = ThreadPoolExecutor(
            settings.threads + settings.transactions, thread_name_prefix="pgflow activity"
        )
        self._transactions = Transactions(database, fence, self._threads, self._written, metrics)
        self._activities = ActivityRunner(
            self._threads,
            settings.activities,
            settings.threads,
            self._transactions,
            settings.transactions,
            trusted_until,
            on_death,
            resources,
        )
        self._newer_known = asyncio.Event()
        """Set once somebody has looked for workers of newer builds."""
        self._missed_news = False
        """Whether news came for a run that was not in memory yet."""
        self._stopping = False
        self._empty = asyncio.Event()

    # Life

    def start(self) -> None:
        """Begin to claim and run workflows."""
        self.loops.start()
        self.crossings.start()
        self._deliverer.start()
        self._claimer.start()

    async def _prepare(self) -> None:
        """Before the first claim: deliver what is waiting."""
        await self._deliverer.looked.wait()
        await self._newer_known.wait()
        if not self._stopping:
            self.journal.start()  # not earlier: the server plans its statements first, and would keep the rest waiting

    def leave_to_newer(self, pairs: frozenset[QueueAndName]) -> None:
        """Leave what is due of these queues and names for a moment to workers of newer builds, which serve them too."""
        self._newer_known.set()
        if pairs != self._claims.left:
            self._claims.leave(pairs)
            log.info("%s", described(pairs, self._settings.build))
            self.look()

    def mail(self, worker: int) -> None:
        """Something was sent to a workflow that `worker` holds or held last; 0: any worker."""
        self._deliverer.look(mine=worker == 0 or self.fence.had(worker), hinted=True)

    async def hand_back(self, grace: float, hurried: asyncio.Event) -> None:
        """Claim no more, give running activities `grace` seconds to end, hand every workflow back; once `hurried` is
        set,
        drop them instead.
        """
        self._stopping = True
        handing, hurry = self._loop.create_task(self._hand_back(grace)), self._loop.create_task(hurried.wait())
        try:
            await asyncio.wait([handing, hurry], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (handing, hurry):
                task.cancel()
            await asyncio.wait([handing, hurry])
        if handing.cancelled():
            log.warning(
                "%d workflows are dropped at once; the steps that they were taking will be repeated", len(self.runs)
            )
            await self.drop()
        else:
            handing.result()
            await self._close()

    async def _hand_back(self, grace: float) -> None:
        await self._claimer.stop(LAST_WRITES)
        log.info("claiming has stopped; %d workflows are handed back as soon as their activities end", len(self.runs))
        for run in list(self.runs.values()):
            run.stop()
        if not await self._until_empty(grace):
            log.warning(
                "%d workflows are still running activities after %g s of grace: these attempts are cut off and will be "
                "repeated",
                len(self.runs),
                grace,
            )
            for run in list(self.runs.values()):
                run.give_up_attempts()
            await self._until_empty(LAST_WRITES)
        try:
            async with asyncio.timeout(LAST_WRITES):
                await self.journal.drain()
        except TimeoutError:
            log.warning("the last writes were not committed in time; another worker will repeat those steps")

    async def drop(self) -> None:
        """Forget everything without a write: the lease is gone."""
        self._stopping = True
        self._discard()
        await self.fence.close()
        await self._claimer.stop(0.0)
        self._discard()  # what the last claim has brought
        await self._close()

    def _discard(self) -> None:
        for run in list(self.runs.values()):
            run.discard()
        self.runs.clear()

    async def _close(self) -> None:
        self._activities.close()
        await self._transactions.close(LAST_WRITES)
        if left := await self._activities.ended(LAST_WRITES):
            log.error(
                "activities go on although they were cancelled; their results will be dropped: %s", "; ".join(left)
            )
        self._run_cache.clear()
        await self._deliverer.close()
        await self.loops.close()
        await self.crossings.close()
        await self.journal.close()
        await self._claims.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _until_empty(self, seconds: float) -> bool:
        """Wait until no run is left: whether none was in time."""
        try:
            async with asyncio.timeout(seconds):
                while self.runs:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            return False
        return True

    # What was claimed

    async def _begin(self, batch: list[Claimed]) -> None:
        """Execute what was claimed; runs that are still in memory go on without a replay."""
        cold: list[Claimed] = []
        for claimed in batch:
            earlier = self.runs.pop(claimed.workflow_id, None)
            if earlier is not None:
                earlier.discard()  # it was taken from this worker and has come back with a higher epoch
            run = self._run_cache.take(claimed)
            if run is not None:
                self.runs[claimed.workflow_id] = run
                if self._metrics is not None:
                    self._metrics.began(claimed, resumed=True)
                self._scheduler.guarded(run, lambda run=run, claimed=claimed: run.resume(claimed))  # type: ignore[misc]
            elif claimed.warm:
                cold.append(claimed)
            else:
                self._execute(claimed)
        self._run_cache.expire()
        if cold:
            self._cold = cold
            await self._execute_cold(cold)
            self._cold = []
        if self._missed_news:
            self._missed_news = False
            self._deliverer.look()

    def _execute(self, claimed: Claimed) -> None:
        if self._metrics is not None:
            self._metrics.began(claimed)
        self.runs[claimed.workflow_id] = execute(claimed, self._registry.get(claimed.name), self)

    async def _execute_cold(self, cold: list[Claimed]) -> None:
        """Execute workflows that this worker held last but no longer has in memory: their histories have to be read."""
        backoff = Backoff(0.05, 5.0)
        while cold and not self._stopping:
            try:
                await self._claims.read_again(cold)
            except psycopg.Error as error:
                pause = backoff.pause()
                log.warning("reading histories failed, the next attempt is in %.2f s: %s", pause, error)
                await asyncio.sleep(pause)
            else:
                for claimed in cold:
                    self._execute(claimed)
                return

    def _seen(self) -> Mapping[UUID, int]:
        return {id: run.claimed.mailbox for id, run in self.runs.items()}

    def _pausing(self) -> set[UUID]:
        return {id for id, run in self.runs.items() if run.pausing}

    def _arrive(self, arrived: Arrived) -> None:
        run = self.runs.get(arrived.workflow_id)
        if run is None:
            self._missed_news = True  # it is being claimed, or has just been given up
        elif self._scheduler.guarded(run, lambda: run.receive(arrived)) is False:
            self._deliverer.look()

    def _terminated(self, id: UUID) -> None:
        run = self.runs.get(id)
        if run is not None and run.outcome is None:  # else its own write has ended it
            run.lost(LeaseLost("somebody has terminated it"))

    def gauges(self, blocked: int) -> list[Family]:
        """What this session stands at now; from any thread.

        Args:
            blocked: how often the worker's event loop was blocked for a second.
        """
        activities = self._activities
        return worker_metrics.state(
            len(self.runs), len(self._run_cache), activities.running, activities.waiting, self.journal.backlog, blocked
        )

    # The fence

    @property
    def worker_id(self) -> int:
        """The current number of the registration."""
        return self.fence.id

    def _moved(self, kept: Collection[RunKey], freed: int) -> None:
        """The fence has moved: runs that did not move with it belong to other workers now, except those whose outcome
        may already be committed.
        """
        for run in list(self.runs.values()):
            if run.claimed.run not in kept and run.outcome is None:
                run.lost(
                    LeaseLost("the workflow no longer belonged to this worker when its connection was opened again")
                )
        self._cold[:] = [claimed for claimed in self._cold if claimed.run in kept]
        self._deliverer.look()  # a look that was sent under the former number found nothing
        if freed:
            self.look()

    # Host

    def now(self) -> datetime:
        """The database's time, never ahead of it."""
        return self._clock.now()

    def later(self, seconds: float) -> datetime:
        """The database's time in so many seconds."""
        return self._clock.now() + timedelta(seconds=seconds)

    def call_at(self, when: datetime, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` when the database's clock shows `when`."""
        return self._loop.call_later(max(0.0, self._clock.seconds_until(when)) + 0.0005, callback)

    def start_activity(self, call: ActivityCall) -> None:
        """Execute one attempt, now or when it is its turn."""
        if self.journal.backlog > self._settings.max_backlog:
            self._activities.pause()
        self._activities.start(call)

    def attempt_failed(self, activity: str, again: bool) -> None:
        """An attempt of an activity has failed."""
        if self._metrics is not None:
            self._metrics.attempt_failed(activity, again)

    def publish(self, messages: Sequence[Message]) -> None:
        """Send messages whose rows are committed."""
        self._notifier.publish(messages)

    def asked(self) -> None:
        """This worker has sent something to other workflows: deliver it."""
        self._deliverer.look()

    def keep(self, run: Run) -> bool:
        """Whether a suspended run stays in memory."""
        if self._stopping or not self._settings.cached:
            return False
        self._run_cache.add(run)
        return True

    def finished(self, run: Run, outcome: Outcome | None) -> None:
        """A run has ended, suspended or left memory."""
        workflow_id = run.claimed.workflow_id
        if self.runs.get(workflow_id) is run:
            del self.runs[workflow_id]
        if self._metrics is not None:
            self._metrics.left(run.claimed.name, outcome)
        if isinstance(outcome, Completed | Failed | Cancelled):
            if run.claimed.parent_id is not None:
                self._deliverer.look()
        elif isinstance(outcome, Suspended):
            self._claimer.note_due(outcome.wake_at)
            if run.claimed.mailbox > outcome.mailbox or run.claimed.cancel_requested:
                self.look()  # something arrived while it went to sleep: it is pending again
        elif isinstance(outcome, Released):
            if outcome.wake_at is None:
                self._notifier.wake(run.claimed.queue)
            else:
                self._claimer.note_due(outcome.wake_at)
        if not self.runs:
            self._empty.set()
        self._claimer.make_room()

    def _started(self, queues: Iterable[str]) -> None:
        """Children of workflows here have been started."""
        for queue in queues:
            self._notifier.wake(queue)
            if queue in self._settings.queues:
                self.look()

    def _sent(self, workers: Iterable[int]) -> None:
        """Workflows here have sent signals to those of these workers (0: any)."""
        for worker in workers:
            if self.fence.had(worker):
                self._deliverer.look()
            else:
                self._notifier.mail(worker)

    def _written(self, runs: int, rows: int) -> None:
        self.steps += rows
        if self.journal.backlog < self._settings.max_backlog // 2:
            self._activities.resume()
