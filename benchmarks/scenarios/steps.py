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
    count = plan.scaled(1_000)
    floor, ours = _drained(plan, count)
    long_floor, long = _drained(plan, 8 * count)
    rates, floor_rates = _rates(ours), _rates(floor)

    def per_step(drains: list[Drain], what: str) -> list[float]:
        return [getattr(each.cost, what) / each.count / STEPS for each in drains]

    return [
        Figure("durable steps", "1/s", rates, f"{count:,} workflows of {STEPS} no-op activities, one worker process"),
        Figure("durable steps, floor", "1/s", floor_rates),
        ratio("durable steps / floor", rates, floor_rates),
        ratio("eight times as many: durable steps / floor", _rates(long), _rates(long_floor)),
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


def _drained(plan: Plan, count: int) -> tuple[list[Drain], list[Drain]]:
    floor: list[Drain] = []
    ours: list[Drain] = []
    for _ in range(plan.repeats):
        floor.append(drain(plan.server, FloorProcess, steps, count))
        ours.append(drain(plan.server, WorkerProcess, steps, count))
    return floor, ours


def _rates(drains: list[Drain]) -> list[float]:
    return [each.rate * STEPS for each in drains]
