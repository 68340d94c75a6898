"""`python -m benchmarks [--quick] [SCENARIO...]` measures; `python -m benchmarks gate` compares with
the kept bounds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.gate import passes
from benchmarks.plan import Plan, Scenario
from benchmarks.report import Report
from benchmarks.scenarios import (
    children,
    dispatching,
    held_open,
    latency,
    loops,
    observed,
    retained,
    sleepers,
    steps,
    takeover,
    workflows,
)
from benchmarks.server import Server

SCENARIOS: dict[str, Scenario] = {
    "steps": steps.run,
    "workflows": workflows.run,
    "dispatching": dispatching.run,
    "latency": latency.run,
    "sleepers": sleepers.run,
    "loops": loops.run,
    "children": children.run,
    "takeover": takeover.run,
    "held_open": held_open.run,
    "retained": retained.run,
    "observed": observed.run,
}


def main() -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}, or gate; all of them if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, once: to see that it works")
    parser.add_argument("--repeats", type=int, help="runs of each measurement (3, or 1 with --quick)")
    parser.add_argument("--turns", type=int, help="of the long loop in `loops` (100,000, about a thousand a second)")
    parser.add_argument("--workflows", type=int, help="that have ended, in `retained` (10,000,000)")
    parser.add_argument("--results", type=Path, default=Path("bench-results"), help="where to write")
    given = parser.parse_args()
    unknown = [name for name in given.what if name not in SCENARIOS and name != "gate"]
    if unknown or ("gate" in given.what and len(given.what) > 1):
        parser.error(f"expected gate alone, or some of {', '.join(SCENARIOS)}; found {' '.join(given.what)}")
    given.results.mkdir(parents=True, exist_ok=True)
    with Server() as server:
        plan = Plan(
            server, given.quick, given.repeats or (1 if given.quick else 3), given.results, given.turns, given.workflows
        )
        if given.what == ["gate"]:
            return 0 if passes(plan) else 1
        report = Report(given.results, server.version, given.quick)
        for name, scenario in SCENARIOS.items():
            if not given.what or name in given.what:
                began = time.monotonic()
                figures = scenario(plan)
                report.add(f"{name} ({time.monotonic() - began:.0f} s)", figures)
    print(f"written: {given.results / 'report.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
