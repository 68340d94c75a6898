"""From a dispatch to its result at the client, with an idle worker and default settings; beside the floor's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pgflow
from benchmarks.figures import Figure, percentile, ratio
from benchmarks.flows import noop
from benchmarks.plan import Plan
from benchmarks.processes import FloorProcess, Process, WorkerProcess


def run(plan: Plan) -> list[Figure]:
    """One call after the other, 300 of them a run."""
    calls = plan.scaled(300)
    floor: list[list[float]] = []
    ours: list[list[float]] = []
    for _ in range(plan.repeats):
        floor.append(measure(plan, FloorProcess, calls))
        ours.append(measure(plan, WorkerProcess, calls))
    p50 = [percentile(run, 0.5) for run in ours]
    p99 = [percentile(run, 0.99) for run in ours]
    floor_p50 = [percentile(run, 0.5) for run in floor]
    return [
        Figure("dispatch to result, p50", "ms", p50, f"{calls} calls to an idle worker, one after the other"),
        Figure("dispatch to result, p99", "ms", p99),
        Figure("dispatch to result, p50, floor", "ms", floor_p50, "the floor as the worker, pgflow's client"),
        Figure("dispatch to result, p99, floor", "ms", [percentile(run, 0.99) for run in floor]),
        ratio("dispatch to result, p50 / floor", p50, floor_p50),
    ]


def measure(plan: Plan, start: Callable[[str], Process], calls: int) -> list[float]:
    """Milliseconds of each call."""

    async def call(dsn: str) -> list[float]:
        found = []
        async with pgflow.Client(dsn) as client:
            for number in range(calls + 20):
                began = time.perf_counter()
                handle = await client.dispatch(noop)
                await handle.output(timeout=10)
                if number >= 20:
                    found.append(1000 * (time.perf_counter() - began))
        return found

    with plan.server.database() as dsn, start(dsn):
        return asyncio.run(call(dsn))
