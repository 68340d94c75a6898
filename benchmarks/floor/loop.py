"""The bare loop: coroutines that take steps, and one writer that makes the steps of all of them durable together."""

from __future__ import annotations

import asyncio
from uuid import UUID

import psycopg

from benchmarks.floor.statements import CLAIM, write
from pgflow.store.database.channels import done_channel, done_payloads

AT_ONCE = 1000
"""Workflows in memory: what a pgflow worker has by default."""

CLAIMED = 500
"""Workflows that one claim takes, at most: what a pgflow worker takes."""

WORKER = 1

LOCATIONS = [str(number) for number in range(1, 10)] + ["a10"]

Connection = psycopg.AsyncConnection[tuple[object, ...]]


class Floor:
    """One process's worth of bare durable execution."""

    def __init__(self, claims: Connection, journal: Connection, notifier: Connection) -> None:
        self._claims = claims
        self._journal = journal
        self._notifier = notifier
        self._steps: list[tuple[str, int, int, str, asyncio.Future[None]]] = []
        self._ends: list[tuple[str, int, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = 0
        self._done: list[UUID] = []
        self._tellings: set[asyncio.Task[None]] = set()
        self._writer = asyncio.create_task(self._write())

    @classmethod
    async def connect(cls, dsn: str) -> Floor:
        """Open the connections."""
        connections = [
            await psycopg.AsyncConnection.connect(
                dsn,
                autocommit=True,
                application_name="floor",
                options="-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off",
            )
            for _ in range(3)
        ]
        await connections[2].execute("SET synchronous_commit = off")
        return cls(*connections)

    async def close(self) -> None:
        """Close the connections."""
        self._writer.cancel()
        await asyncio.gather(*self._tellings)
        for connection in (self._claims, self._journal, self._notifier):
            await connection.close()

    async def drain(self) -> None:
        """Run all workflows that are due to their ends."""
        tasks: set[asyncio.Task[None]] = set()
        while True:
            cursor = await self._claims.execute(
                CLAIM,
                {"names": ["noop", "steps"], "limit": min(CLAIMED, AT_ONCE - self._running), "worker": WORKER},
                prepare=True,
            )
            claimed = await cursor.fetchall()
            self._running += len(claimed)
            for workflow_id, name, epoch in claimed:
                task = asyncio.create_task(self._workflow(str(workflow_id), str(name), int(str(epoch))))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if not claimed and not self._running:
                return
            while self._running > AT_ONCE - AT_ONCE // 10 or (self._running and not claimed):
                self._ended.clear()
                await self._ended.wait()

    async def _workflow(self, workflow_id: str, name: str, epoch: int) -> None:
        loop = asyncio.get_running_loop()
        if name == "steps":
            for number, location in enumerate(LOCATIONS, 1):
                output = str(await nothing())
                durable: asyncio.Future[None] = loop.create_future()
                self._steps.append((workflow_id, epoch, number, location + " " + output, durable))
                self._arrived.set()
                await durable
        durable = loop.create_future()
        self._ends.append((workflow_id, epoch, durable))
        self._arrived.set()
        await durable
        self._running -= 1
        self._ended.set()

    async def _write(self) -> None:
        """One batch after another: what has arrived while the last one was on its way."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            steps, self._steps = self._steps, []
            ends, self._ends = self._ends, []
            runs = {
                key: number
                for number, key in enumerate({(s[0], s[1]) for s in steps} | {(e[0], e[1]) for e in ends}, 1)
            }
            parameters: dict[str, object] = {
                "worker": WORKER,
                "ids": "{" + ",".join([key[0] for key in runs]) + "}",
                "epochs": "{" + ",".join([str(key[1]) for key in runs]) + "}",
            }
            if steps:
                texts = [step[3].split(" ") for step in steps]
                parameters["run"] = "{" + ",".join([str(runs[step[0], step[1]]) for step in steps]) + "}"
                parameters["seq"] = "{" + ",".join([str(step[2]) for step in steps]) + "}"
                parameters["location"] = " ".join([text[0] for text in texts])
                parameters["output"] = " ".join([text[1] for text in texts])
            if ends:
                parameters["ended"] = "{" + ",".join([str(runs[end[0], end[1]]) for end in ends]) + "}"
            cursor = await self._journal.execute(write(bool(steps), bool(ends)), parameters, prepare=True)
            found = await cursor.fetchone()
            if found != (len(runs),):
                raise RuntimeError(
                    f"{found} of {len(runs)} runs were still the floor's: is a worker running on its database?"
                )
            for step in steps:
                step[4].set_result(None)
            for end in ends:
                end[2].set_result(None)
            if ends:
                self._done += [UUID(end[0]) for end in ends]
                telling = asyncio.create_task(self._tell())
                self._tellings.add(telling)
                telling.add_done_callback(self._tellings.discard)

    async def _tell(self) -> None:
        """Say which workflows have ended, as a worker does."""
        done, self._done = self._done, []
        for payload in done_payloads(done):
            await self._notifier.execute("SELECT pg_notify(%s, %s)", [done_channel("pgflow"), payload], prepare=True)


async def nothing() -> int:
    """The step's own work."""
    return 1
