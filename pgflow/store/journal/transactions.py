"""Transactional activities: the result of an activity is committed by the transaction of the activity's own statements.

    BEGIN -> the activity's statements -> check -> fence -> the journal's statement for one run -> COMMIT

The run's row is locked by the fence, just before the commit, so that an activity that takes long holds up nobody. If
the lease is gone by then, everything is rolled back. If the connection breaks at the commit, its fate is looked up: the
lost transaction holds the run's row until it ends, so the next session that gets that row sees whether the result is
there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import datetime
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.transaction import OutOfOrderTransactionNesting

from pgflow import faults
from pgflow.errors import TransactionMisused
from pgflow.model.writes import Write
from pgflow.observe.worker_metrics import WorkerMetrics
from pgflow.store.database.backoff import Backoff
from pgflow.store.database.connections import Database, Line, is_lost
from pgflow.store.database.incarnation import LOOK, Incarnation
from pgflow.store.database.pooler import elsewhere, is_shared
from pgflow.store.database.replication import check_replicated
from pgflow.store.database.session_settings import HELD, setting
from pgflow.store.journal.activity_session import AsyncSession, Session, ThreadSession, status_of
from pgflow.store.journal.batch import SEPARATOR, parts_of
from pgflow.store.journal.statement import append, lost
from pgflow.store.leasing.fencing import Fence, fence_of

_log = logging.getLogger("pgflow.store")

SLACK = 10.0
"""Seconds after the end of an activity's timeout at which the server ends its transaction by itself."""


class Transactions:
    """Implements `pgflow.ports.TransactionsPort` for one worker: the connections of its transactional activities.

    There are as many as are asked for at once; the caller bounds that.

    Args:
        database: Where to write.
        worker: The worker whose leases fence the writes.
        executor: Threads, one of which is free for each transaction of a plain `def`.
        on_commit: Called after each commit with the numbers of runs and rows.
        metrics: Counts the writes that are durable; None: nothing is counted.

    Example:
        transaction = await transactions.begin(blocking=False, timeout=30.0)
        await transaction.connection.execute(...)
        await transaction.commit(write)
        await transaction.close()
    """

    def __init__(
        self,
        database: Database,
        worker: int | Fence,
        executor: Executor,
        on_commit: Callable[[int, int], None] | None = None,
        metrics: WorkerMetrics | None = None,
    ) -> None:
        self.database = database
        self.fence = fence_of(worker)
        self.on_commit = on_commit
        self.metrics = metrics
        self._executor = executor
        self._idle: dict[bool, list[Session]] = {True: [], False: []}
        self._open: set[Transaction] = set()
        self._ended = asyncio.Event()
        self._closed = False
        self._watch: str | None = None

    async def begin(self, *, blocking: bool, timeout: float | None) -> Transaction:
        """Begin a transaction; keep trying with bounded backoff while the database cannot be reached.

        Args:
            blocking: Whether it gets a synchronous connection, for a thread.
            timeout: Seconds that the activity may take.

        Raises:
            psycopg.Error: The database refuses.
        """
        backoff = Backoff()
        while True:
            idle = self._idle[blocking]
            session = idle.pop() if idle else None
            kept = session is not None
            try:
                if session is None:
                    session = await self._connect(blocking)
                transaction = await self._begin(session, timeout)
            except BaseException as error:
                if session is not None:
                    await session.close()
                if not isinstance(error, psycopg.OperationalError):
                    raise
                if kept:
                    continue  # it broke while it was idle
                _log.warning("no connection for a transactional activity, trying again: %s", error)
                await asyncio.sleep(backoff.spread_pause())
            else:
                self._open.add(transaction)
                return transaction

    async def close(self, patience: float) -> None:
        """Close all connections; those in use when their transactions have ended, which is waited for.

        Args:
            patience: Seconds to wait for them.
        """
        self._closed = True
        try:
            async with asyncio.timeout(patience):
                while self._open:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            _log.warning("%d transactional activities have not ended in time, they are rolled back", len(self._open))
        for session in [*self._idle[True], *self._idle[False]]:
            await session.close()
        self._idle = {True: [], False: []}

    async def release(self, transaction: Transaction, session: Session, *, usable: bool) -> None:
        """Take a connection back, cleaned for the next activity, or close it."""
        try:
            if usable and not self._closed and status_of(session) == TransactionStatus.IDLE:
                session.restore()
                if not is_shared(session.connection):
                    await session.execute(self.database.statement("transaction_reset"))
                self._idle[isinstance(session, ThreadSession)].append(session)
            else:
                await session.close()
        except BaseException as error:
            await session.close()
            if not isinstance(error, psycopg.Error | RuntimeError):
                raise
            # It broke, or this database has other means of cleaning a session, or the worker has no threads any more.
            _log.info("a connection of transactional activities is not used again: %s", error)
        finally:
            self._open.discard(transaction)
            self._ended.set()

    async def _connect(self, blocking: bool) -> Session:
        session: Session
        if blocking:
            session = await ThreadSession.open(self.database, self._executor)
        else:
            session = await AsyncSession.open(self.database)
        await self._meet(session)
        if self._watch is None:
            try:
                await session.execute(self.database.statement("transaction_watch"), {})
            except psycopg.DatabaseError as error:
                if is_lost(error, session.connection):
                    raise
                _log.info("this server notices lost clients only between statements: %s", error)
                self._watch = "0"
            else:
                self._watch = "2s"
        return session

    async def _meet(self, session: Session) -> None:
        """Check that the connection leads to the known server: what another one has must be examined first."""
        try:
            (row,) = await session.execute(LOOK, {})
        except psycopg.DatabaseError as error:
            if is_lost(error, session.connection):
                raise
            return  # it does not tell
        if not self.fence.knows(Incarnation(*row)):
            self.fence.doubt()
            await self.fence.settle()

    async def _begin(self, session: Session, timeout: float | None) -> Transaction:
        mark = secrets.token_hex(8)
        await session.begin()
        ((path, user, *_),) = await session.execute(
            self.database.statement("transaction_begin"),
            {
                "mark": mark,
                "idle": "0" if timeout is None else f"{int((timeout + SLACK) * 1000)}ms",
                "watch": self._watch,
            },
        )
        return Transaction(self, session, (mark, "read committed", "off", path, user))


class Transaction:
    """One transaction, from its begin to its end. `connection` is what the activity works with.

    Args:
        pool: Where its connection goes back to.
        session: The connection.
        begun: The properties that the transaction must still have at its end: mark, isolation, read-only, search_path,
            role.
    """

    def __init__(self, pool: Transactions, session: Session, begun: tuple[str, ...]) -> None:
        self.connection: Any = session.connection
        self._pool = pool
        self._session = session
        self._begun = begun
        self._active = True
        self._usable = True

    async def commit(self, write: Write) -> datetime:
        """Write what belongs to the activity's result, and commit; returns the time of that.

        Args:
            write: The result's row, and what else goes with it.

        Raises:
            TransactionMisused: The activity has ended, broken or altered the transaction; it is rolled back.
            LeaseLost: The run is not this worker's any more; it is rolled back.
            psycopg.Error: The database refused, or the connection broke and nothing was committed.
        """
        session, database = self._session, self._pool.database
        self._check_status()
        wait = {"wait": f"{database.statement_timeout}ms"}
        check = database.statement("transaction_check").replace(b"{settings}", setting(HELD))
        known = self._pool.fence.incarnation
        if known is not None and is_shared(session.connection):
            check = check.rstrip() + b", " + elsewhere(known.timeline, known.started)
        (left,) = await session.execute(check, wait)
        self._check_settings(left[:5])
        await faults.reach("transactions.before_fence")
        fence = self._pool.fence
        while True:
            await fence.settle()
            worker = fence.id
            if await session.execute(database.statement("transaction_fence"), _held(write, worker)):
                break
            if fence.refused(worker):
                raise lost(write.run)
        await faults.reach("transactions.fenced")
        statement, parameters = append(database.schema, str(worker), parts_of([write]), begun_before=True)
        ((at, fenced, *_),) = await session.execute(statement, parameters)
        if not fenced:
            raise lost(write.run)
        await faults.reach("transactions.before_commit")
        self._active = False
        try:
            await session.end(commit=True)
            check_replicated(session.connection)
        except OutOfOrderTransactionNesting as error:
            raise _misused("left a block `connection.transaction()` open") from error
        except psycopg.Error as error:
            if not is_lost(error, session.connection):
                raise
            self._usable = False
            _log.warning("the connection broke at the commit of a transactional activity: %s", error)
            found = await self._fate(write)
            if found is None:
                raise
            at = found
        await faults.reach("transactions.after_commit")
        if self._pool.metrics is not None:
            self._pool.metrics.committed([write])
        if self._pool.on_commit is not None:
            self._pool.on_commit(1, len(write.rows))
        committed_at: datetime = at
        return committed_at

    async def rollback(self) -> None:
        """Undo everything."""
        if self._active:
            self._active = False
            try:
                await self._session.end(commit=False)
            except (psycopg.Error, RuntimeError):  # broken, or the worker has no threads any more
                self._usable = False

    async def abort(self, work: Future[Any]) -> None:
        """Undo everything although `work`, in its thread, is still using the connection."""
        self._active = self._usable = False
        self._pool._open.discard(self)
        self._pool._ended.set()
        await self._session.abort(work)

    async def close(self) -> None:
        """Give the connection back. What has not been committed is rolled back."""
        try:
            await self.rollback()
        finally:
            await self._pool.release(self, self._session, usable=self._usable)

    def _check_status(self) -> None:
        status = status_of(self._session)
        if status == TransactionStatus.INERROR:
            raise _misused(
                "caught an error of a statement, after which PostgreSQL refuses all others",
                "Put a statement that may fail into `with ctx.connection.transaction():`, and catch its error around "
                "that",
            )
        if status == TransactionStatus.IDLE:
            raise _misused("has ended its transaction itself")
        if status == TransactionStatus.ACTIVE:
            raise _misused("has left a statement unfinished")
        if status == TransactionStatus.UNKNOWN:
            raise psycopg.OperationalError(
                "the connection of the transactional activity is closed or broke before the commit: nothing was "
                "committed"
            )

    def _check_settings(self, left: tuple[str | None, ...]) -> None:
        mark, isolation, read_only, path, user = self._begun
        if left[0] != mark:
            raise _misused("has ended its transaction itself and begun another")
        names = ("isolation level", "read-only mode", "search_path", "role")
        for name, before, after in zip(names, (isolation, read_only, path, user), left[1:], strict=True):
            if before != after:
                raise _misused(
                    f"has changed the {name} of its transaction from {before!r} to {after!r}",
                    "Set it back before the activity returns",
                )

    async def _fate(self, write: Write) -> datetime | None:
        """When the lost transaction committed; None if it did not. This is certain once its lock is free."""
        stored = {
            "write": [0],
            "workflow_ids": [write.run.workflow_id],
            "location": SEPARATOR.join([write.rows[0].location]),
        }
        statement = self._pool.database.statement
        fence = self._pool.fence
        line = Line(self._pool.database, "transaction's fate", fence)
        backoff = Backoff()
        try:
            while True:
                try:
                    async with line.transaction() as transaction:
                        held = await transaction.execute(statement("transaction_fence"), _held(write, line.under))
                        rows = await transaction.execute(statement("journal_stored"), stored)
                    if not await held.fetchall():
                        if not fence.refused(line.under):
                            continue
                        raise lost(write.run)
                    found = await rows.fetchall()
                    return found[0][1] if found else None
                except psycopg.Error as error:
                    _log.warning("the fate of a commit is not known yet, asking again: %s", error)
                    await asyncio.sleep(backoff.spread_pause())
        finally:
            await line.drop()


def _held(write: Write, worker: int) -> dict[str, Any]:
    return {"workflow_id": write.run.workflow_id, "worker": worker, "epoch": write.run.epoch}


def _misused(what: str, advice: str = "") -> TransactionMisused:
    advice = advice or "Leave the transaction open: the engine commits it together with the activity's result"
    return TransactionMisused(
        f"the transactional activity {what}. Expected: one transaction, as it was begun, until the activity returns. "
        f"{advice}. Nothing is recorded as done."
    )
