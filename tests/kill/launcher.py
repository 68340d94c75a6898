"""Starts workers that cost little to kill: imports everything once, forks each worker, and kills them.

    python -m tests.kill.launcher WORKERS MEAN_LIFE SEED

A worker is killed from outside, a random time after it has begun to work (some while they still start), or kills itself
at a named point between two statements of the engine; another one takes its place. Tells on standard output, one JSON
object a line, who was started and who is dead. Reads orders on standard input: `calm` (kill nobody any more), `stop`
(SIGTERM for all). When its input ends, everything ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import selectors
import signal
import sys
import time
import traceback
import uuid
from dataclasses import dataclass

import psycopg

import pgflow
from pgflow import faults
from pgflow.cli.logs import configure
from tests.kill import load

PR_SET_PDEATHSIG = 1

POINTS = {
    "journal.before": 30,
    "journal.after": 30,
    "claims.before_read": 4,
    "leases.before_free": 1,
    "crossings.before": 3,
    "crossings.after": 3,
    "mailbox.before_deliver": 5,
    "loops.before": 4,
    "loops.after_progress": 4,
    "loops.after_move": 4,
    "loops.after_trim": 4,
    "loops.before_commit": 4,
    "transactions.before_fence": 6,
    "transactions.before_commit": 6,
    "transactions.after_commit": 6,
}
"""Where a worker kills itself, and at which passing at the latest; in turn, with ordinary deaths between them."""

YOUNG = 0.1
"""The share of workers that are killed while they start."""

UNREACHABLE = 4
"""The exit code of a worker that was cut off before it had begun: a supervisor would start another one."""

LATEST = 4.0
"""Mean lives after which a worker is killed that has not come to the point of its death."""


@dataclass
class Child:
    """One worker process."""

    token: str
    pid: int
    handle: int
    dies_at: float
    how: str


class Launcher:
    """Keeps so many workers running, and kills them."""

    def __init__(self, workers: int, mean_life: float, seed: int) -> None:
        self.chance = random.Random(seed)
        self.mean_life = mean_life
        self.killing = True
        self.stopping = False
        self.started = 0
        self.children: dict[int, Child] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        for _ in range(workers):
            self.start()

    def start(self) -> None:
        """Fork one worker."""
        token = uuid.uuid4().hex
        point, passing = "", 0
        self.started += 1
        if self.killing and self.started % 2:
            point = list(POINTS)[self.started // 2 % len(POINTS)]
            passing = self.chance.randint(1, POINTS[point])
        ready, says_ready = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                work(token, point, passing, says_ready)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(3)
        os.close(says_ready)
        handle = os.pidfd_open(pid)
        young = not point and self.chance.random() < YOUNG
        dies_at = time.monotonic() + self.chance.random() * 0.1 if young else float("inf")
        self.children[handle] = Child(token, pid, handle, dies_at, point or "outside")
        self.selector.register(handle, selectors.EVENT_READ)
        self.selector.register(ready, selectors.EVENT_READ, handle)
        tell(started=token, pid=pid)

    def run(self) -> None:
        """Go on until told to stop, or until whoever started this is gone."""
        while self.children:
            self.kill_due()
            for key, _ in self.selector.select(self.pause()):
                if key.data is not None:
                    self.note_ready(key.fd, self.children.get(key.data))
                elif key.fd in self.children:
                    self.bury(self.children[key.fd])
                elif not self.obey():
                    return

    def pause(self) -> float | None:
        """Seconds until the next one dies."""
        if not self.killing:
            return None
        first = min(child.dies_at for child in self.children.values())
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def note_ready(self, ready: int, child: Child | None) -> None:
        """A worker has begun to work (or ended before): from now on its time runs."""
        self.selector.unregister(ready)
        os.close(ready)
        if child is not None and child.dies_at == float("inf"):
            life = self.chance.expovariate(1) if child.how == "outside" else LATEST
            child.dies_at = time.monotonic() + life * self.mean_life

    def kill_due(self) -> None:
        """Kill whose time has come; `bury` hears of it by its handle."""
        now = time.monotonic()
        for child in self.children.values():
            if self.killing and child.dies_at <= now:
                child.dies_at, child.how = float("inf"), "outside"
                os.kill(child.pid, signal.SIGKILL)

    def bury(self, child: Child) -> None:
        """A worker has ended: killed, or by an error of its own, which is told."""
        _, status = os.waitpid(child.pid, 0)
        self.selector.unregister(child.handle)
        os.close(child.handle)
        del self.children[child.handle]
        tell(ended=child.token, how=child.how, code=os.waitstatus_to_exitcode(status))
        if not self.stopping:
            self.start()

    def obey(self) -> bool:
        """Read an order; whether to go on."""
        orders = os.read(sys.stdin.fileno(), 4096).decode().split()
        for order in orders:
            if order == "calm":
                self.killing = False
            elif order == "stop":
                self.stopping, self.killing = True, False
                for child in self.children.values():
                    os.kill(child.pid, signal.SIGTERM)
        if not orders:
            for child in self.children.values():
                os.kill(child.pid, signal.SIGKILL)
        return bool(orders)


def work(token: str, point: str, passing: int, ready: int) -> None:
    """Be a worker, until death at the given passing of a point, or until SIGTERM."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    load.TOKEN = token
    left = passing

    def die() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    configure("warning")
    with faults.install({point: die} if point else {}):
        asyncio.run(_serve(ready))
    sys.stderr.flush()
    os._exit(0)


async def _serve(ready: int) -> None:
    dsn = os.environ.get(load.THROUGH) or os.environ[load.VARIABLE]
    worker = pgflow.Worker(dsn, workflows=load.WORKFLOWS, threads=4, concurrency=200)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    running = asyncio.create_task(worker.run())
    begun = asyncio.create_task(worker.ready.wait())
    await asyncio.wait([running, begun], return_when=asyncio.FIRST_COMPLETED)
    os.write(ready, b"x")
    try:
        await running
    except psycopg.OperationalError:
        if worker.ready.is_set() or load.THROUGH not in os.environ:
            raise
        os._exit(UNREACHABLE)


def tell(**what: object) -> None:
    """One line for whoever started this."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    Launcher(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])).run()
