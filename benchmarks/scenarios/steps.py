"""Durable steps: workflows of ten no-op activities, worked off by one `pgflow worker`, and by the floor."""

from __future__ import annotations

from benchmarks.drains import Drain, drain
from benchmarks.figures import Figure, ratio
from benchmarks.flows import steps
from benchmarks.plan import Plan
from benchmarks.processes import FloorProcess, WorkerProcess

STEPS = 10


def run(plan: Plan) -> list[Figure]:
    """In alternation, since the machine may have other things to do as well."""
    count = plan.scaled(2_000)
    floor: list[Drain] = []
    ours: list[Drain] = []
    for _ in range(plan.repeats):
        floor.append(drain(plan.server, FloorProcess, steps, count))
        ours.append(drain(plan.server, WorkerProcess, steps, count))
    rates = [each.rate * STEPS for each in ours]
    floor_rates = [each.rate * STEPS for each in floor]

    def per_step(drains: list[Drain], what: str) -> list[float]:
        return [getattr(each.cost, what) / each.count / STEPS for each in drains]

    return [
        Figure("durable steps", "1/s", rates, f"{count:,} workflows of {STEPS} no-op activities, one worker process"),
        Figure("durable steps, floor", "1/s", floor_rates),
        ratio("durable steps / floor", rates, floor_rates),
        Figure("worker CPU a step", "ms", [1000 * each.cpu / each.count / STEPS for each in ours]),
        Figure("worker CPU a step, floor", "ms", [1000 * each.cpu / each.count / STEPS for each in floor]),
        Figure("server CPU a step", "ms", [1000 * each for each in per_step(ours, "cpu")], "all its processes"),
        Figure("server CPU a step, floor", "ms", [1000 * each for each in per_step(floor, "cpu")]),
        Figure("WAL a step", "B", per_step(ours, "wal"), "claim and completion included"),
        Figure("WAL a step, floor", "B", per_step(floor, "wal")),
        Figure("commits a step", "", per_step(ours, "commits")),
        Figure("commits a step, floor", "", per_step(floor, "commits")),
        Figure("statements a step", "", per_step(ours, "statements")),
        Figure("statements a step, floor", "", per_step(floor, "statements")),
    ]
