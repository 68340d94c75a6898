"""No-op workflows, worked off by one `pgflow worker`, by the floor, and by two and four workers."""

from __future__ import annotations

from benchmarks.drains import drain
from benchmarks.figures import Figure, ratio
from benchmarks.flows import noop
from benchmarks.plan import Plan
from benchmarks.processes import FloorProcess, WorkerProcess


def run(plan: Plan) -> list[Figure]:
    """In alternation."""
    count = plan.scaled(20_000)
    floor: list[float] = []
    by: dict[int, list[float]] = {1: [], 2: []} if plan.quick else {1: [], 2: [], 4: []}
    for _ in range(plan.repeats):
        floor.append(drain(plan.server, FloorProcess, noop, count).rate)
        for processes, rates in by.items():
            rates.append(drain(plan.server, WorkerProcess, noop, count, processes).rate)
    return [
        Figure("workflows", "1/s", by[1], f"{count:,} workflows without a step, one worker process"),
        Figure("workflows, floor", "1/s", floor),
        ratio("workflows / floor", by[1], floor),
        *(Figure(f"workflows, {number} processes", "1/s", by[number]) for number in by if number > 1),
        ratio("workflows, 2 processes / 1", by[2], by[1]),
    ]
