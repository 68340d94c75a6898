"""What the peers' driver has written, as one table of medians, with pgflow's ratio to the best of the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import shown

Row = tuple[str, Callable[[dict[str, Any]], float], bool]

ROWS: list[Row] = [
    ("dispatch in bulk, 1/s", lambda r: r["W1"]["1"][0]["enqueue"]["rate"], True),
    ("dispatch one at a time, 1/s", lambda r: r["SEQ"][0], True),
    ("no-op workflows, 1 process, 1/s", lambda r: r["W1"]["1"][0]["drain"]["rate"], True),
    ("no-op workflows, 2 processes, 1/s", lambda r: r["W6"]["2"][0]["drain"]["rate"], True),
    ("no-op workflows, 4 processes, 1/s", lambda r: r["W6"]["4"][0]["drain"]["rate"], True),
    ("durable steps, 1/s", lambda r: r["W2"][0]["steps_s"], True),
    ("WAL a step, B", lambda r: r["W2"][0]["wal_step"], False),
    ("commits a step", lambda r: r["W2"][0]["commits_step"], False),
    ("worker CPU a step, ms", lambda r: r["W2"][0]["cpu_s"] / 10, False),
    ("call to result, p50, ms", lambda r: r["W3"][0]["p50"], False),
    ("call to result, p99, ms", lambda r: r["W3"][0]["p99"], False),
    ("1,000 waiting: signalled to ended, s", lambda r: r["W4"][0]["total_s"], False),
    ("1,000 waiting: worker's idle CPU, cores", lambda r: r["W4"][0]["idle_cpu"], False),
    ("1,000 waiting: worker's memory, MB", lambda r: r["W4"][0]["rss_mb"], False),
    ("history of 10,000 steps: resumed in, s", lambda r: r["W5"][0]["resume_s"], False),
    ("sequential steps of one workflow, 1/s", lambda r: r["W5"][0]["seq_steps_s"], True),
]
"""Name, where the driver's results have it, and whether more is better."""


def write(results: Path, names: list[str]) -> str:
    """Write `peers.md` and return its text."""
    rounds = {name: [json.loads(path.read_text()) for path in sorted(results.glob(f"{name}-*.json"))] for name in names}
    lines = [
        f"| figure | {' | '.join(names)} | pgflow / best other |",
        "| --- |" + " ---: |" * (len(names) + 1),
    ]
    for title, read, more in ROWS:
        values = {name: _median(found, read) for name, found in rounds.items()}
        others = [value for name, value in values.items() if name != "pgflow" and value is not None]
        ours = values.get("pgflow")
        best = (max(others) if more else min(others)) if others else None
        told = ["-" if values[name] is None else shown(values[name] or 0.0) for name in names]
        compared = shown(ours / best) if ours is not None and best else "-"
        lines.append(f"| {title} | {' | '.join(told)} | {compared} |")
    versions = [f"{name} {found[0]['version']} ({found[0]['config']})" for name, found in rounds.items() if found]
    text = "\n".join([*lines, "", "Medians. " + "; ".join(versions) + "."])
    (results / "peers.md").write_text(text + "\n")
    return text


def _median(rounds: list[dict[str, Any]], read: Callable[[dict[str, Any]], float]) -> float | None:
    """The median over rounds that have this figure; None if none has."""
    found = []
    for one in rounds:
        try:
            found.append(read(one))
        except (KeyError, IndexError):
            continue
    return median(found) if found else None
