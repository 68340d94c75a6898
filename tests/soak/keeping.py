"""A load whose workflows are kept for a short while: the tables' sizes have to stay level.

    python -m tests.soak.keeping [--minutes 5] [--keep 20] [--rate 40] [--plot docs/retention.svg]

Each of the workflows has a child, a signal and some steps. Ends with an error if the tables grow from the second third
of the time to the last one by more than a half, or if what is due is not removed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

import pgflow
from benchmarks.plot import plot
from pgflow.store.schema.migrations import migrate
from tests import databases

TABLES = ("workflows", "events", "ends", "signals", "runs")


@pgflow.signal
@dataclass
class Parcel:
    number: int


@pgflow.activity
async def weigh(ctx: pgflow.ActivityContext, number: int) -> int:
    return number % 7


@pgflow.workflow
async def label(ctx: pgflow.WorkflowContext, number: int) -> int:
    return await ctx.activity(weigh, number)


@pgflow.workflow
async def ship(ctx: pgflow.WorkflowContext, number: int) -> int:
    child = await ctx.dispatch(label, number)
    parcel = await ctx.listen(Parcel, timeout=30)
    return await child.output() + (0 if parcel is None else await ctx.activity(weigh, parcel.number))


async def load(client: pgflow.Client, rate: float, until: float) -> int:
    """Start so many a second, each with a signal; how many in all."""
    started = 0
    while (now := time.monotonic()) < until:
        for handle in await client.dispatch_many(ship, [{"number": started + n} for n in range(max(1, int(rate)))]):
            await client.signal(Parcel(started), to=handle.id)
            started += 1
        await asyncio.sleep(max(0.0, now + 1.0 - time.monotonic()))
    return started


async def watch(dsn: str, begun: float, until: float) -> list[dict[str, Any]]:
    """Sizes and counts, every five seconds."""
    samples = []
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as sql:
        while time.monotonic() < until:
            await asyncio.sleep(5)
            sizes = ", ".join(f"pg_total_relation_size('pgflow.{table}')" for table in TABLES)
            cursor = await sql.execute(f"SELECT (SELECT count(*) FROM pgflow.workflows), {sizes}".encode())
            row = await cursor.fetchone()
            assert row is not None
            sample = {
                "seconds": round(time.monotonic() - begun),
                "kept": row[0],
                **dict(zip(TABLES, row[1:], strict=True)),
            }
            print(json.dumps(sample), flush=True)
            samples.append(sample)
    return samples


async def soak(dsn: str, minutes: float, keep: float, rate: float) -> tuple[int, list[dict[str, Any]]]:
    """Load it and watch."""
    begun = time.monotonic()
    until = begun + minutes * 60
    async with (
        pgflow.Client(dsn) as client,
        pgflow.Worker(dsn, workflows=[ship, label], signal_keep=keep),
    ):
        await client.retention.set("*", keep=keep)
        return tuple(await asyncio.gather(load(client, rate, until), watch(dsn, begun, until)))


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.keeping", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--keep", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    with databases.server() as server, databases.database(server) as dsn:
        migrate(dsn)
        started, samples = asyncio.run(soak(dsn, given.minutes, given.keep, given.rate))
    total = [sum(sample[table] for table in TABLES) for sample in samples]
    third = len(total) // 3
    middle, last = (max(part) for part in (total[third : 2 * third], total[2 * third :]))
    print(
        f"{2 * started} workflows started, {samples[-1]['kept']} are there; "
        f"{middle / 2**20:.1f} MB, then {last / 2**20:.1f}"
    )
    if given.plot is not None:
        lines = {
            "MB in all": [value / 2**20 for value in total],
            "workflows kept": [float(sample["kept"]) for sample in samples],
        }
        text = plot("A load with retention", [sample["seconds"] for sample in samples], lines, "second")
        given.plot.write_text(text, encoding="utf-8")
    return 0 if last <= 1.5 * middle and samples[-1]["kept"] < started else 1


if __name__ == "__main__":
    sys.exit(main())
