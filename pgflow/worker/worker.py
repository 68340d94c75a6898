"""`pgflow.Worker`: registers, claims and runs workflows, recovers those of dead workers, hands everything back at its
end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Self
from uuid import UUID

import psycopg

from pgflow import forking
from pgflow.definitions.descriptors import Registry, Workflow
from pgflow.definitions.retry import seconds
from pgflow.definitions.schemas import schemas_of
from pgflow.errors import WorkerMisused
from pgflow.execution.activities.resources import Resources
from pgflow.execution.engine.host import Limits
from pgflow.execution.engine.recorded_arguments import refuse
from pgflow.store.database.background import report_death
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.exchange.sweeping import AUDIT_KEEP, Sweeper
from pgflow.store.leasing.leases import BETWEEN_LOOKS, Lease, Recovery
from pgflow.store.notify.notifier import Listener, Notifier
from pgflow.store.schema.compatibility import check_async
from pgflow.version import VERSION
from pgflow.worker.lifespan import Lifespan, LifespanFunction, checked_lifespan
from pgflow.worker.loop_watchdog import Watchdog
from pgflow.worker.observation import Observation, at_port
from pgflow.worker.session import WorkerSession
from pgflow.worker.settings import Settings
from pgflow.worker.stopping import unless
from pgflow.worker.unrepeatable import warn_of_unrepeatable
from pgflow.worker.warming import warm_up

log = logging.getLogger("pgflow.worker")


class Worker:
    """Runs workflows until it is stopped. One process may hold thousands of them at once.

    Args:
        dsn: the database.
        workflows: what it can run; two with the same name are refused.
        queues: the queues that it serves.
        concurrency: workflows in memory at once.
        lease: seconds (or a timedelta) that its workflows are safe from others after its last heartbeat.
        schema: the schema of the tables.
        threads: plain activity functions at once.
        transactions: transactional activities at once; each has a connection to the database of its own.
        cached: sleeping workflows kept in memory, at most, to go on without a replay.
        activities: async activity attempts at once; as many as workflows if not given.
        grace: seconds (or a timedelta) that running activities may go on after a stop.
        poll: the longest pause, in seconds, between two looks for work that no notification announced.
        payload_limit: the largest payload in bytes of JSON.
        max_active_rows: active history rows at which a workflow is stopped with an error.
        strict: whether to fail a workflow whose code, on replay, calls a step with other arguments than the recorded
            ones.
        max_crashes: deaths of processes, while they ran nothing but one workflow's code and it made no progress, after
            which it fails.
        signal_keep: seconds (or a timedelta) that a signal is kept after it was taken, or dropped, so that one sent
            again under the same id is known; workers remove it after that, whether its workflow lives or not.
        audit_keep: seconds (or a timedelta) that a row of what operators did (`client.audit`) is kept.
        metrics_port: a port at which it serves `/metrics`, `/livez` and `/readyz` while it runs; needs the extra
            `metrics`. None: it counts nothing and opens no port.
        metrics_host: the address of that port; the default is all of the machine's.
        build: the version of the application, such as "2026.11.30-1": of the workflows and queues that a live worker of
            a newer one serves too, it takes only what has been due for 5 seconds; None: older than any.
        lifespan: a function that gives an async context manager: what it yields, an object or a tuple of them, is what
            `ctx.resource` of activities finds. Entered before the first claim, left after the last attempt.
        objects: further such objects; methods of theirs may be activities.

    Raises:
        ValueError: a setting is out of its range, or two workflows have one name, or two objects one type.
        TypeError: something in `workflows` is not a workflow, `lifespan` is no function, or an object is a class.

    Example:
        worker = pgflow.Worker(dsn, workflows=[checkout])
        await worker.run()
    """

    def __init__(
        self,
        dsn: str,
        *,
        workflows: Iterable[Workflow[Any, Any]],
        queues: Sequence[str] = ("default",),
        concurrency: int = 1000,
        lease: timedelta | float = 15.0,
        schema: str = "pgflow",
        threads: int = 32,
        transactions: int = 10,
        cached: int = 1000,
        activities: int | None = None,
        grace: timedelta | float = 10.0,
        poll: float = 1.0,
        payload_limit: int = 1 << 20,
        max_active_rows: int = 100_000,
        strict: bool = False,
        max_crashes: int = 5,
        signal_keep: timedelta | float = 86_400.0,
        audit_keep: timedelta | float = AUDIT_KEEP,
        metrics_port: int | None = None,
        metrics_host: str = "0.0.0.0",
        build: str | None = None,
        lifespan: LifespanFunction | None = None,
        objects: Iterable[Any] = (),
    ) -> None:
        self._registry = Registry(workflows)
        if not self._registry.names:
            raise ValueError("workflows=[]: expected at least one workflow")
        self._settings = Settings(
            queues=tuple([queues] if isinstance(queues, str) else queues),
            concurrency=concurrency,
            activities=concurrency if activities is None else activities,
            threads=threads,
            transactions=transactions,
            cached=cached,
            lease=seconds(lease, "lease"),
            grace=seconds(grace, "grace"),
            poll=poll,
            limits=Limits(
                payload=payload_limit,
                warn_rows=max(1, max_active_rows // 10),
                max_rows=max_active_rows,
                other_arguments=refuse if strict else None,
                crashes=max_crashes,
            ),
            signal_keep=seconds(signal_keep, "signal_keep"),
            audit_keep=seconds(audit_keep, "audit_keep"),
            build=build,
            metrics_port=metrics_port,
        )
        self._lifespan = checked_lifespan(lifespan)
        self._objects = Resources(objects, "Worker(objects=[...])")
        warm_up()
        self._database = Database(dsn, schema, self._settings.lease)
        served = None if metrics_port is None else at_port(metrics_host, metrics_port)
        self.observation = Observation(served, self._registry.names)
        """What it shows of itself, and where; `pgflow worker` sets another in the processes of a supervisor."""
        self._begin()
        forking.watch(self)
        self.when_hopeless: Callable[[], None] = lambda: None
        """Called in a thread when a workflow's code blocks the event loop for good; `pgflow worker` ends its process
        then.
        """

    def _begin(self) -> None:
        self._session: WorkerSession | None = None
        self._formerly: tuple[int, ...] = ()
        """The numbers of its last registration."""
        self._ended = asyncio.Event()
        """Set when the session has to end: its lease is lost, or the worker stops."""
        self._stopping = False
        self._stopped = asyncio.Event()
        """Set with `_stopping`."""
        self._hurried = asyncio.Event()
        """Set when the worker must not wait any longer: everything is dropped."""
        self._cancelled_again = asyncio.Event()
        """Set when whoever runs it does not wait any longer either: its lifespan is cut off."""
        self._life: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._running: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        """Set once the worker is registered and claims."""

    def after_fork(self) -> None:
        """The running worker belongs to the parent process; this copy has not been started."""
        forking.leave(self._session, self._ended, self._stopped, self._hurried, self._cancelled_again)
        forking.leave(self._life, self._running, self.ready, self.observation)
        self.observation = self.observation.anew()
        self._begin()

    @property
    def id(self) -> int | None:
        """The number of the worker's registration, while it has one."""
        return self._session.worker_id if self._session is not None else None

    def stop(self) -> None:
        """Claim no more; let running activities end within the grace period; hand everything back. Returns at once.

        Call it on the worker's event loop.
        """
        self._stopping = True
        self._stopped.set()
        self._ended.set()
        self.observation.stopping = True

    async def run(self) -> None:
        """Run until `stop()`. A worker runs once: to go on after a stop, create another.

        A cancellation is a stop: before it leaves this method, running activities end within the grace period and
        everything is handed back. Cancelling a worker that is already stopping drops everything at once; what it held
        is free for other workers all the same. In both cases no task, connection or thread of the worker is left
        afterwards, except threads in which plain functions are still running: nothing can end those, and their results
        are dropped.

        Raises:
            WorkerMisused: it is already running, or has been stopped.
            PgflowError: the metrics port is in use, or prometheus-client is not installed.
            LifespanFailed: its lifespan could not be entered, has ended by itself, or could not be left.
            SchemaOutdated: the database is not migrated, or its schema does not fit this code.
            psycopg.OperationalError: the database cannot be reached at the start.
            Exception: a part of the worker failed with an error of its own; all workflows are handed back first.
        """
        self._check_unused()
        life = self._life = asyncio.get_running_loop().create_task(self._live(), name="pgflow worker's life")
        cancelled: asyncio.CancelledError | None = None
        while not life.done():
            try:
                await asyncio.wait([life])
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
                if self._stopping:
                    self._hurried.set()
                    self._cancelled_again.set()
                self.stop()
        if cancelled is None:
            return life.result()
        if not life.cancelled() and (failure := life.exception()) is not None:
            log.error("the worker ended with an error while it was being cancelled", exc_info=failure)
        raise cancelled

    def _check_unused(self) -> None:
        if self._stopping:
            raise WorkerMisused(
                "this worker has been stopped, and a worker runs once: create another `pgflow.Worker` to go on"
            )
        if self._life is not None and not self._life.done():
            raise WorkerMisused(
                "this worker is already running: `run()` was called twice, or inside `async with worker`"
            )

    async def _live(self) -> None:
        """The body of `run`, in a task that nobody cancels."""
        self.observation.open()
        try:
            await self._with_resources()
        finally:
            await self.observation.close()

    async def _with_resources(self) -> None:
        lifespan = Lifespan(self._lifespan, self._objects, self._fail)
        await unless(self._stopped, lifespan.enter())
        try:
            if not self._stopping:
                await self._work(lifespan.resources)
        finally:
            await lifespan.leave(self._cancelled_again)

    async def _work(self, resources: Resources) -> None:
        """Connect, and hold one session after the other until the worker is stopped."""
        database = self._database
        connection = await unless(self._stopped, self._connect())
        if connection is None:
            return
        warn_of_unrepeatable(self._registry)
        recovery = Line(database, "recovery")
        recovery.adopt(connection)
        notifier = Notifier(database, trims=True)
        notifier.start()
        declared = {name: self._registry.get(name).keep for name in self._registry.names}
        sweeper = Sweeper(database, self._settings.signal_keep, self._settings.audit_keep, declared)
        listener = Listener(
            database,
            wake=self._hint,
            mail=self._mail,
            deadline=self._expect,
            chore=sweeper.hint,
            reconnected=self._look,
        )
        listener.start()
        observation = self.observation
        watchdog = Watchdog(
            self._describe,
            self._interrupt,
            lambda: self.when_hopeless(),
            None if observation.metrics is None else observation.metrics.late,
        )
        observation.watchdog = watchdog
        watchdog.start()
        sweeping = asyncio.get_running_loop().create_task(sweeper.run(), name="pgflow sweeper")
        sweeping.add_done_callback(partial(report_death, then=self._fail))
        try:
            while not self._stopping:
                await self._run_session(notifier, recovery, resources)
            if self._failure is not None:
                raise self._failure
        finally:
            watchdog.stop()
            observation.watchdog = None
            sweeping.cancel()
            await asyncio.wait([sweeping])
            await recovery.drop()
            await listener.close()
            await notifier.close()

    async def _connect(self) -> AsyncConnection:
        """A connection to a database whose server and schema fit this code."""
        connection = await self._database.connect("recovery")
        try:
            await check_async(connection, self._database.schema)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _run_session(self, notifier: Notifier, line: Line, resources: Resources) -> None:
        """Register, work until the lease is lost or the worker stopped, and end."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()

        def note_loss(reason: str) -> None:
            loop.call_soon_threadsafe(self._lost, lost, reason)

        def note_death(error: BaseException) -> None:
            lost.set()
            self._fail(error)

        lease = await unless(self._stopped, self._register(note_loss))
        if lease is None:
            return
        session = WorkerSession(
            self._database,
            lease.fence,
            self._registry,
            settings,
            notifier,
            trusted_until=lambda: lease.clear_until,
            on_death=note_death,
            metrics=self.observation.metrics,
            resources=resources,
        )
        self._session = session
        self.observation.begin(session, lambda: lease.clear_until)
        session.start()
        recovery = loop.create_task(self._recover(lease, line), name="pgflow recovery")
        log.info(
            "worker %d started: %d workflows known, queues %s, lease %g s",
            lease.worker_id,
            len(self._registry.names),
            ", ".join(settings.queues),
            settings.lease,
        )
        self.ready.set()
        try:
            await self._ended.wait()
            if lost.is_set():
                await session.drop()
            else:
                await session.hand_back(settings.grace, self._hurried)
        except asyncio.CancelledError:  # the event loop is being closed
            await session.drop()
            raise
        finally:
            recovery.cancel()
            try:
                await recovery
            except asyncio.CancelledError:
                pass
            self._session = None
            self.observation.session = None
            if not self._stopping:
                self._ended.clear()
            self._formerly = (*lease.fence.numbers, *lease.fence.former)
            await lease.release()
            log.info("worker %d ended after %d rows of history", lease.worker_id, session.steps)

    async def _register(self, on_lost: Callable[[str], None]) -> Lease:
        """Register for a lease. The first attempt may fail; later ones are repeated until the database answers."""
        backoff = Backoff(0.1, 5.0)
        while True:
            try:
                return await Lease.register(
                    self._database,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                    version=VERSION,
                    queues=list(self._settings.queues),
                    build=self._settings.build,
                    names=self._registry.names,
                    concurrency=self._settings.concurrency,
                    definitions=schemas_of(self._registry),
                    on_lost=on_lost,
                    formerly=self._formerly,
                )
            except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction) as error:
                if not self.ready.is_set():
                    raise
                pause = backoff.pause()
                log.warning("registering again failed, the next attempt is in %.1f s: %s", pause, error)
            await asyncio.sleep(pause)

    def _fail(self, error: BaseException) -> None:
        """A part of this worker that should never end has failed with an error of its own: stop."""
        self._failure = error
        self.stop()

    def _lost(self, lost: asyncio.Event, reason: str) -> None:
        self.observation.lease_lost()
        log.error("the lease is lost, everything in memory is dropped: %s", reason)
        lost.set()
        self._ended.set()
        if self._stopping:  # there is nothing left that this worker could hand back
            self._hurried.set()

    async def _recover(self, lease: Lease, line: Line) -> None:
        """Look for dead workers and take over what they held."""
        settings = self._settings
        pause = settings.recovery
        backoff = Backoff(pause * 2, 10.0)
        served: dict[str, Any] = {"queues": settings.queues, "names": self._registry.names, "build": settings.build}
        async with Recovery(
            self._database, lease.fence, own_key=lambda: lease.lock_key, line=line, **served
        ) as recovery:
            while True:
                try:
                    recovered = await recovery.look()
                    if recovered:
                        self._look()
                    await self.observation.see_schema(line, self._database.schema)
                except psycopg.Error as error:
                    wait = backoff.pause()
                    log.warning("looking for dead workers failed, the next look is in %g s: %s", wait, error)
                else:
                    backoff.reset()
                    wait = BETWEEN_LOOKS + 0.05 if recovery.suspicious else pause
                if self._session is not None:
                    self._session.leave_to_newer(recovery.left)
                await asyncio.sleep(wait)

    def _hint(self, queue: str, id: UUID | None) -> None:
        if self._session is not None and queue in self._settings.queues:
            self._session.hint(id)

    def _look(self) -> None:
        if self._session is not None:
            self._session.look()

    def _mail(self, worker: int) -> None:
        if self._session is not None:
            self._session.mail(worker)

    def _expect(self, seconds: float) -> None:
        if self._session is not None:
            self._session.expect(seconds)

    def _describe(self) -> str | None:
        return self._session.describe() if self._session is not None else None

    def _interrupt(self, seconds: float, frame: FrameType | None) -> bool:
        session = self._session
        return session is not None and session.interrupt(seconds, frame)

    async def __aenter__(self) -> Self:
        """Run in the background until the end of the block.

        Raises:
            WorkerMisused: it is already running, or has been stopped.
            Exception: as `run`, before it is ready.
        """
        self._check_unused()
        self._running = asyncio.get_running_loop().create_task(self.run(), name="pgflow worker")
        ready = asyncio.ensure_future(self.ready.wait())
        try:
            await asyncio.wait([self._running, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._running.cancel()
            while not self._running.done():
                try:
                    await asyncio.wait([self._running])
                except asyncio.CancelledError:
                    self._running.cancel()
            raise
        finally:
            ready.cancel()
        if self._running.done():
            await self._running
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        assert self._running is not None
        await self._running
