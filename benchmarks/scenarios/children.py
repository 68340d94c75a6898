"""Children: ten thousand of one workflow and back, beside as many that a client starts; one at a time, beside none."""

from __future__ import annotations

import time

import pgflow
from benchmarks.drains import drain
from benchmarks.figures import Figure, percentile, ratio
from benchmarks.flows import fan_out, noop, one_child
from benchmarks.plan import Plan
from benchmarks.processes import WorkerProcess
from pgflow.definitions.descriptors import Workflow


def run(plan: Plan) -> list[Figure]:
    """One worker process; in alternation."""
    count, calls = plan.scaled(10_000), plan.scaled(200)
    back: list[float] = []
    alone: list[float] = []
    with_child: list[float] = []
    without: list[float] = []
    for _ in range(plan.repeats):
        alone.append(drain(plan.server, WorkerProcess, noop, count).rate)
        back.append(there_and_back(plan, count))
        with_child.append(latency(plan, one_child, calls))
        without.append(latency(plan, noop, calls))
    return [
        Figure("children of one workflow, there and back", "1/s", back, f"{count:,} children without a step"),
        Figure("the same, started by a client beforehand", "1/s", alone),
        ratio("children / workflows", back, alone),
        Figure(
            "a workflow with one child, p50", "ms", with_child, f"{calls} calls to an idle worker, one after the other"
        ),
        ratio("a workflow with one child / without, p50", with_child, without),
    ]


def there_and_back(plan: Plan, count: int) -> float:
    """Children a second, from the dispatch of their parent to its output."""
    with plan.server.database() as dsn, WorkerProcess(dsn), pgflow.SyncClient(dsn) as client:
        assert client.dispatch(fan_out, 100).output(timeout=60) == 100
        began = time.perf_counter()
        assert client.dispatch(fan_out, count).output(timeout=300) == count
        return count / (time.perf_counter() - began)


def latency(plan: Plan, workflow: Workflow[[], int], calls: int) -> float:
    """Milliseconds from a dispatch to its output, half of the calls."""
    found = []
    with plan.server.database() as dsn, WorkerProcess(dsn), pgflow.SyncClient(dsn) as client:
        for number in range(calls + 20):
            began = time.perf_counter()
            client.dispatch(workflow).output(timeout=60)
            if number >= 20:
                found.append(1000 * (time.perf_counter() - began))
    return percentile(found, 0.5)
