"""The storm of `tests/kill`, for as long as you let it: `make soak`, or

    python -m tests.soak [--minutes 10] [--workers 4] [--life 0.6] [--live 100] [--seed N] [--wire 1.0]

With `--wire`, workers reach the database through a wire that cuts, delays, freezes, and delivers late
(`tests/kill/wire.py`).

One round after another, each on a database of its own and with other chances; ends with an error at the first
violation, and keeps what the workers logged. Ctrl-C ends it after the round.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from pgflow.store.schema.migrations import migrate
from tests import databases
from tests.kill.storm import rage
from tests.kill.wire import wire

ROUND = 200
"""Kills of one round."""

ENDS = 2500
"""Workflows of one round through a wire."""


def main() -> int:
    """Run rounds until the time is over; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--workers", type=int, default=4, help="workers at a time")
    parser.add_argument("--life", type=float, default=0.6, help="seconds that a worker lives, on average")
    parser.add_argument("--live", type=int, default=100, help="workflows that have not ended, at most")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the first round")
    parser.add_argument(
        "--wire",
        type=float,
        help="seconds that a wire leaves each connection alone, on average; without, there is none",
    )
    asked = parser.parse_args()
    until = time.monotonic() + asked.minutes * 60
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        print("the last round is to end", flush=True)

    signal.signal(signal.SIGINT, interrupt)
    killed: Counter[str] = Counter()
    befell: Counter[str] = Counter()
    workflows = 0
    logs = Path(tempfile.mkdtemp(prefix="pgflow_soak_"))
    with databases.server() as server:
        for seed in range(asked.seed, sys.maxsize):
            if interrupted or time.monotonic() >= until:
                break
            with ExitStack() as stack:
                dsn = stack.enter_context(databases.database(server))
                migrate(dsn)
                between = (
                    None if asked.wire is None else stack.enter_context(wire(dsn, mean_peace=asked.wire, seed=seed))
                )
                storm = rage(
                    dsn,
                    logs / f"{seed}.log",
                    kills=ROUND if between is None else 0,
                    ends=0 if between is None else ENDS,
                    seed=seed,
                    workers=asked.workers,
                    mean_life=asked.life,
                    live=asked.live,
                    until=until,
                    through=between,
                )
                befell.update({} if between is None else between.befell)
            killed.update(storm.killed)
            workflows += storm.workflows
            print(
                f"seed {seed}: {killed.total()} kills, {befell.total()} faults of the wire, {workflows} workflows",
                flush=True,
            )
            if storm.violations:
                print(*storm.violations, f"the workers' log: {logs / f'{seed}.log'}", sep="\n", file=sys.stderr)
                return 1
    print("killed at:", *[f"{point} {count}" for point, count in killed.most_common()], sep="\n  ")
    if befell:
        print("befell connections:", *[f"{fate} {count}" for fate, count in befell.most_common()], sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
