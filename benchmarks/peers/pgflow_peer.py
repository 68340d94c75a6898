"""pgflow as the peers' driver wants it: what it is called, how work is sent to it, and a worker process.

It is copied beside the other peers' runners and runs there, in their virtual environment, with pgflow installed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from peers.common import recreate_db, url  # type: ignore[import-not-found]  # the driver's

import pgflow
from pgflow.cli.run_worker import spare_collector
from pgflow.version import VERSION as VERSION

NAME = "pgflow"
CONFIG = "one Worker with default settings; SyncClient with 4 connections (default), output() by notification (default)"
FEATURES = {"steps", "signal", "history"}
PENDING_SQL = "select exists(select 1 from pgflow.runs)"
WAITING_SQL = "select count(*) from pgflow.runs where status = 'sleeping'"
HISTCOUNT_SQL = "select count(*) from pgflow.events"


@pgflow.signal
@dataclass
class Proceed:
    """What the waiting ones wait for."""


@pgflow.activity
async def step(ctx: pgflow.ActivityContext, number: int) -> int:
    """A no-op step."""
    return number


@pgflow.workflow
async def noop(ctx: pgflow.WorkflowContext) -> int:
    """No step at all."""
    return 1


@pgflow.workflow
async def steps(ctx: pgflow.WorkflowContext) -> int:
    """Ten steps."""
    for number in range(10):
        await ctx.activity(step, number)
    return 10


@pgflow.workflow
async def wait(ctx: pgflow.WorkflowContext) -> None:
    """Waits to be signalled."""
    await ctx.listen(Proceed)


@pgflow.workflow
async def hist(ctx: pgflow.WorkflowContext, length: int) -> int:
    """A long history, then a wait."""
    for number in range(length):
        await ctx.activity(step, number)
    await ctx.listen(Proceed)
    return length


WORKFLOWS = {workflow.name: workflow for workflow in (noop, steps, wait, hist)}


def setup(db: str) -> None:
    """A fresh, migrated database."""
    recreate_db(db)
    pgflow.migrate(url(db))


class Client:
    """Sends work, as the driver asks: it calls from a thread, so the client for threads serves it; many signals at
    once, an event loop.
    """

    BULK = "dispatch_many (2,000 in a statement)"

    def __init__(self, db: str) -> None:
        self._client = pgflow.SyncClient(url(db)).__enter__()
        self._runner = asyncio.Runner()
        self._signals = pgflow.Client(url(db))
        self._runner.run(self._signals.__aenter__())

    def enqueue_seq(self, kind: str, n: int) -> list[UUID]:
        """One after the other."""
        return [self._client.dispatch(WORKFLOWS[kind], **_arguments(kind)).id for _ in range(n)]

    def enqueue_many(self, kind: str, n: int) -> list[UUID]:
        """In bulk."""
        return [handle.id for handle in self._client.dispatch_many(WORKFLOWS[kind], [_arguments(kind)] * n)]

    def call(self, kind: str = "noop") -> Any:
        """From dispatch to result."""
        return self._client.dispatch(WORKFLOWS[kind], **_arguments(kind)).output()

    def signal_all(self, ids: list[UUID]) -> None:
        """Many signals, as many at once as the client has connections."""

        async def go() -> None:
            await asyncio.gather(*(self._signals.signal(Proceed(), to=id) for id in ids))

        self._runner.run(go())

    def signal(self, id: UUID) -> None:
        """One signal."""
        self.signal_all([id])

    def close(self) -> None:
        """Close the connections."""
        self._client.__exit__(None, None, None)
        self._runner.run(self._signals.__aexit__(None, None, None))
        self._runner.close()


def _arguments(kind: str) -> dict[str, Any]:
    return {"length": int(os.environ.get("HIST", "10000"))} if kind == "hist" else {}


def worker(db: str, role: str) -> None:
    """A worker process: says READY, begins at a line from standard input."""
    made = pgflow.Worker(url(db), workflows=list(WORKFLOWS.values()))
    spare_collector()  # as `pgflow worker` does
    print("READY", flush=True)
    sys.stdin.readline()
    asyncio.run(made.run())


if __name__ == "__main__":
    worker(sys.argv[2], sys.argv[3])
