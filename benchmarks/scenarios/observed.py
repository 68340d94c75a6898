"""What it costs to be looked at: the same steps by a worker that counts, and is scraped, and by one that does not."""

from __future__ import annotations

import socket
import threading
import urllib.request
from types import TracebackType

from benchmarks.drains import Drain, drain
from benchmarks.figures import Figure, ratio
from benchmarks.flows import steps
from benchmarks.plan import Plan
from benchmarks.processes import WorkerProcess

STEPS = 10
BETWEEN_SCRAPES = 5.0
"""Seconds; Prometheus usually takes 15 or 60."""


def run(plan: Plan) -> list[Figure]:
    """In alternation, since the machine may have other things to do as well."""
    count = plan.scaled(8_000)
    plain: list[Drain] = []
    watched: list[Drain] = []
    for _ in range(plan.repeats):
        plain.append(drain(plan.server, WorkerProcess, steps, count))
        watched.append(drain(plan.server, _Watched, steps, count))

    def rates(drains: list[Drain]) -> list[float]:
        return [each.rate * STEPS for each in drains]

    def cpu(drains: list[Drain]) -> list[float]:
        return [1000 * each.cpu / each.count / STEPS for each in drains]

    return [
        Figure("durable steps", "1/s", rates(plain), f"{count:,} workflows of {STEPS} no-op activities"),
        Figure("durable steps, with metrics", "1/s", rates(watched), f"scraped every {BETWEEN_SCRAPES:g} s"),
        ratio("with metrics / without", rates(watched), rates(plain)),
        Figure("worker CPU a step", "ms", cpu(plain)),
        Figure("worker CPU a step, with metrics", "ms", cpu(watched)),
        ratio("worker CPU: with metrics / without", cpu(watched), cpu(plain)),
    ]


class _Watched(WorkerProcess):
    """A worker that counts, and somebody who reads that."""

    def __init__(self, dsn: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        super().__init__(dsn, "--metrics-port", str(self._port), "--metrics-host", "127.0.0.1")
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._scrape, daemon=True)
        self._reader.start()

    def _scrape(self) -> None:
        while not self._ended.wait(BETWEEN_SCRAPES):
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
                answer.read()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._reader.join()
        super().__exit__(kind, error, traceback)
