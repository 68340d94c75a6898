"""Leases: a worker's right to what it claims, and the recovery of what dead workers still hold.

    registered --heartbeat--> registered --release--> gone
        |
        +--no heartbeat until `expires_at`, or its session lock gone at two looks--> dead --recovery--> gone

The lease is one row of `workers`. Recovery makes the runs of a dead worker claimable; the epoch that the next claim
gives them fences out whatever the dead one may still send.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from pgflow import faults
from pgflow.model.builds import build_order
from pgflow.model.claimed import CONFIRM
from pgflow.store.database.connections import Database, Line
from pgflow.store.database.pooler import AsyncConnection
from pgflow.store.leasing.fencing import Fence, MovingFence, fence_of, fresh_number
from pgflow.store.leasing.lease_thread import LeaseThread
from pgflow.store.leasing.newer_builds import QueueAndName, left_to_newer

_log = logging.getLogger("pgflow.store")

BETWEEN_LOOKS = 0.25
"""Seconds for which a worker's lock must have been missing, at two looks, before it counts as dead."""

STRAYS_EVERY = 5.0
"""Seconds between two checks for runs whose owner is no worker (its row was deleted by hand)."""

FREED_AT_ONCE = 5_000
"""The most runs that one transaction of the recovery frees."""

SIGN_OFF = 5.0
"""Seconds that signing off may take."""


_process = (0, uuid.UUID(int=0))


def this_process() -> uuid.UUID:
    """A name for this process that no other process ever has, not even one with the same pid, nor a
    fork of this one.
    """
    global _process
    if _process[0] != os.getpid():
        _process = os.getpid(), uuid.uuid4()
    return _process[1]


class Lease:
    """One registration of a worker, kept alive by its own thread.

    Example:
        lease = await Lease.register(database, queues=["default"], on_lost=lost)
        ...
        await lease.release()
    """

    def __init__(self, heartbeat: LeaseThread, fence: MovingFence) -> None:
        self.fence = fence
        """The registration's number, which may move: it fences every write, and is never used twice."""
        self._heartbeat = heartbeat
        self._watch: asyncio.Task[None] | None = None

    @property
    def worker_id(self) -> int:
        """The current number of the registration."""
        return self.fence.id

    @classmethod
    async def register(
        cls,
        database: Database,
        *,
        queues: Sequence[str],
        on_lost: Callable[[str], None],
        host: str | None = None,
        pid: int | None = None,
        version: str = "",
        build: str | None = None,
        names: Sequence[str] = (),
        concurrency: int | None = None,
        definitions: str | None = None,
        formerly: Sequence[int] = (),
    ) -> Lease:
        """Register a worker and begin to keep its lease of `database.lease` seconds.

        Args:
            database: Where to register.
            queues: The queues that it serves, for people to read.
            on_lost: Called once, possibly in another thread, with the reason, when the lease can no longer be trusted:
                the worker must drop everything that it holds, write nothing more, and register again.
            host: This machine's name, if not the default.
            pid: This process, if not the default.
            version: The code's version, for people to read.
            build: The version of the application; None: older than any.
            names: The workflows that it knows.
            concurrency: How many it holds at once, for people to read.
            definitions: The JSON Schemas of the arguments of those workflows by name, as JSON.
            formerly: The numbers of this worker's last registration, if it was lost: what it held is handed back, and
                nothing is suspected of its seeming death.

        Raises:
            psycopg.OperationalError: The database cannot be reached.
        """
        row = {
            "host": host or socket.gethostname(),
            "pid": pid or os.getpid(),
            "version": version,
            "queues": list(queues),
            "process": this_process(),
            "build": build,
            "build_order": None if build is None else build_order(build),
            "names": list(names),
            "concurrency": concurrency,
            "definitions": definitions,
        }
        once = threading.Lock()

        def lost(reason: str) -> None:
            if once.acquire(blocking=False):
                on_lost(reason)

        loop = asyncio.get_running_loop()
        fence = MovingFence(database, fresh_number(), lost)

        def doubt() -> None:
            loop.call_soon_threadsafe(fence.doubt)

        heartbeat = LeaseThread(database, row, lost, lambda: fence.numbers, doubt, formerly)
        heartbeat.start()
        try:
            fence.incarnation = await asyncio.shield(asyncio.wrap_future(heartbeat.registered))
        except asyncio.CancelledError:  # it may be registered all the same: then it signs off
            heartbeat.stop()
            await asyncio.to_thread(heartbeat.join, SIGN_OFF)
            if heartbeat.is_alive():
                heartbeat.abandon()
            raise
        lease = cls(heartbeat, fence)
        lease._watch = asyncio.get_running_loop().create_task(lease._watched(database.lease, lost), name="pgflow lease")
        return lease

    @property
    def deadline(self) -> float:
        """Until when, on the monotonic clock, nobody can take over what this worker holds."""
        return self._heartbeat.deadline

    @property
    def clear_until(self) -> float:
        """Until when something may be begun for what this worker holds; it is in the past while
        something is in doubt.
        """
        return 0.0 if self.fence.in_doubt else self._heartbeat.deadline

    @property
    def trusted(self) -> bool:
        """Whether nobody can have taken over what this worker holds."""
        return time.monotonic() < self.deadline

    @property
    def lock_key(self) -> int | None:
        """The session lock that the heartbeat holds now, as far as it knows; None: session locks are not available
        here.
        """
        return self._heartbeat.lock_key

    async def _watched(self, seconds: float, lost: Callable[[str], None]) -> None:
        """Notice the lease's end even if the thread hangs in a server that does not answer."""
        while self.trusted:
            await asyncio.sleep(max(0.001, self._heartbeat.deadline - time.monotonic()))
        lost(f"no heartbeat was confirmed for {seconds:g} s")
        self._heartbeat.abandon()

    async def release(self) -> None:
        """Hand back what is still held and sign off. After a loss: end the thread."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
        await self.fence.close()
        heartbeat = self._heartbeat
        heartbeat.stop()
        await asyncio.to_thread(heartbeat.join, SIGN_OFF)
        if heartbeat.is_alive():
            _log.warning("the database does not answer, worker %d ends without a word", self.worker_id)
            heartbeat.abandon()


class Recovery:
    """Looks for dead workers, and frees what they held for others to claim.

    Example:
        async with Recovery(database, worker_id) as recovery:
            freed = await recovery.look()
    """

    def __init__(
        self,
        database: Database,
        worker: int | Fence,
        *,
        own_key: Callable[[], int | None] = lambda: None,
        line: Line | None = None,
        build: str | None = None,
        queues: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> None:
        """
        Args:
            database: Where to look.
            worker: The worker that looks; it never takes itself for dead.
            own_key: The session lock that the worker itself holds (`Lease.lock_key`). A worker that does not see its
                own lock takes nobody for dead just because a lock is missing.
            line: Where to ask, if not on a connection of its own; closed with the recovery.
            build: The build of the worker; None: older than any.
            queues: The queues that it serves.
            names: The workflows that it knows.
        """
        self._database = database
        self._fence = fence_of(worker)
        self._own_key = own_key
        self._line = Line(database, "recovery") if line is None else line
        self._build = None if build is None else build_order(build)
        self._served = queues, names
        self.left: frozenset[QueueAndName] = frozenset()
        """What the last look left to workers of newer builds."""
        self._suspects: dict[tuple[int, int], float] = {}
        self._next_strays = 0.0
        self.queues: frozenset[str] = frozenset()
        """The queues of the runs that the last look freed."""

    @property
    def suspicious(self) -> bool:
        """Whether a worker's lock was missing at the last look: look again after `BETWEEN_LOOKS`."""
        return bool(self._suspects)

    async def look(self) -> int:
        """Look once. It is cheap: call it about every half second.

        Returns:
            How many runs became claimable.

        Raises:
            psycopg.Error: The database cannot be asked; nothing happened.
        """
        connection = await self._line.get()
        clock = time.monotonic()
        strays = clock >= self._next_strays
        if strays:
            self._next_strays = clock + STRAYS_EVERY
        asked = {"worker": self._fence.id, "own_key": self._own_key(), "strays": strays, "build": self._build}
        cursor = await connection.execute(self._database.statement("leases_look"), asked, prepare=True)
        expired: dict[int, int | None] = {}
        proven: dict[int, bool] = {}
        missing: dict[tuple[int, int], float] = {}
        newer = False
        for worker_id, lock_key, is_expired in await cursor.fetchall():
            if is_expired is None:
                newer = True
            elif is_expired:
                expired[worker_id] = None
                proven[worker_id] = False
            else:
                missing[worker_id, lock_key] = self._suspects.get((worker_id, lock_key), clock)
        dead = {key: since for key, since in missing.items() if clock - since >= BETWEEN_LOOKS}
        self._suspects = {key: since for key, since in missing.items() if key not in dead}
        self.left = await self._left_to_newer(connection) if newer else frozenset()
        self.queues = frozenset()
        expired.update(dead.keys())
        proven.update((worker_id, True) for worker_id, _ in dead)
        return await self._recover(connection, expired, proven) if expired else 0

    async def _left_to_newer(self, connection: AsyncConnection) -> frozenset[QueueAndName]:
        queues, names = self._served
        asked = {"build": self._build, "queues": list(queues), "names": list(names)}
        cursor = await connection.execute(self._database.statement("leases_newer"), asked)
        return left_to_newer(await cursor.fetchall(), queues, names)

    async def _recover(self, connection: AsyncConnection, dead: dict[int, int | None], proven: dict[int, bool]) -> int:
        statement = self._database.statement
        total: int = 0
        strays = {"ids": list(dead), "limit": FREED_AT_ONCE}
        while True:
            async with connection.transaction():
                suspects = {"ids": list(dead), "lock_keys": list(dead.values())}
                locked = await connection.execute(statement("leases_lock"), suspects)
                mine = {row[0] for row in await locked.fetchall()}
                known = await connection.execute(statement("leases_known"), strays)
                mine |= set(dead) - {row[0] for row in await known.fetchall()}
                found = sorted(mine)
                ids = {"ids": found, "limit": FREED_AT_ONCE, "gone": [proven[id] for id in found], "confirm": CONFIRM}
                await connection.execute(statement("leases_count"), ids)
                await faults.reach("leases.before_free")
                freed = await connection.execute(statement("leases_free"), ids)
                ((count, queues),) = await freed.fetchall()
                await connection.execute(statement("leases_deaths"), ids)
                buried = await connection.execute(statement("leases_bury"), ids)
                names = [row[0] for row in await buried.fetchall()]
            total += int(count)
            self.queues |= set(queues)
            if names:
                _log.warning("workers %s died; %d workflows of theirs go on elsewhere", names, total)
            if count < FREED_AT_ONCE:
                return total

    async def close(self) -> None:
        """Close the connection."""
        await self._line.drop()

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first look; the line is closed at the end, also one that was given."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def recover(database: Database, worker_id: int, **settings: Any) -> int:
    """Look for dead workers until nothing is in doubt: twice, some 0.3 s apart, if a worker's lock is missing.

    It opens a connection; to look often, keep a `Recovery`.

    Returns:
        How many runs became claimable.

    Example:
        await recover(database, lease.worker_id)
    """
    async with Recovery(database, worker_id, **settings) as recovery:
        freed = await recovery.look()
        if recovery.suspicious:
            await asyncio.sleep(BETWEEN_LOOKS + 0.05)
            freed += await recovery.look()
        return freed
