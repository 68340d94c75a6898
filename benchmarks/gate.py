"""The gate: durable steps a second, divided by the floor's in the same run, must not fall below a bound.

A stored time would say more about the machine than about the code; a ratio of two that ran in alternation does not.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.figures import shown
from benchmarks.plan import Plan
from benchmarks.scenarios import steps

BOUNDS = Path(__file__).with_name("bounds.json")


def passes(plan: Plan) -> bool:
    """Measure, say what came out, and whether that is good enough."""
    bounds = json.loads(BOUNDS.read_text())
    found = {figure.name: figure for figure in steps.run(plan)}
    good = True
    for name, bound in bounds.items():
        value, least = found[name].median, bound.get("least")
        most = bound.get("most")
        kept = (least is None or value >= least) and (most is None or value <= most)
        wanted = f"at least {least}" if least is not None else f"at most {most}"
        print(f"{'ok  ' if kept else 'FAIL'} {name}: {shown(value)} (expected {wanted})")
        good = good and kept
    return good
