"""`python -m benchmarks.flame PY-SPY FILE`: where a worker under load spends its time, as a picture.

    python -m benchmarks.flame /var/tmp/tools/bin/py-spy docs/flame.svg

A worker works off workflows of ten steps while the sampler looks at its stack; each box is a function, as wide as the
share of samples in which it was on the stack, above the one that called it. Point at a box for its name and share.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

import pgflow
from benchmarks.flows import steps
from benchmarks.processes import WorkerProcess, wait_until
from benchmarks.server import Server

WORKFLOWS = 15_000
SECONDS = 8
WIDTH, HEIGHT = 1200, 16
LEAST = 1.5
"""Boxes narrower than so many pixels are left out."""


@dataclass(slots=True)
class Box:
    """A function at one place in the stack."""

    name: str
    samples: int = 0
    above: dict[str, Box] = field(default_factory=dict)

    def add(self, names: list[str], samples: int) -> None:
        """Count samples of a stack that goes on with these names."""
        self.samples += samples
        if names:
            name = names[0]
            self.above.setdefault(name, Box(name)).add(names[1:], samples)

    @property
    def depth(self) -> int:
        """How many boxes stand upon each other from here on."""
        return 1 + max((box.depth for box in self.above.values()), default=0)


def main() -> None:
    """Sample a worker, draw what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flame")
    parser.add_argument("sampler", type=Path, help="the py-spy to sample with; it may have to run as root")
    parser.add_argument("file", type=Path, help="the SVG to write")
    given = parser.parse_args()
    given.file.write_text(drawn(tree(sampled(given.sampler))))


def sampled(sampler: Path) -> str:
    """Stacks from the outermost call to the innermost, joined by semicolons, each with its number of samples."""
    with (
        Server() as server,
        server.database() as dsn,
        pgflow.SyncClient(dsn) as client,
        psycopg.connect(dsn, autocommit=True) as watch,
        WorkerProcess(dsn) as worker,
        TemporaryDirectory() as place,
    ):

        def drained() -> bool:
            return watch.execute("SELECT EXISTS (SELECT FROM pgflow.runs)").fetchone() == (False,)

        client.dispatch_many(steps, [{}] * 300)
        wait_until(drained, "the warm-up ends")
        worker.freeze()
        client.dispatch_many(steps, [{}] * WORKFLOWS)
        worker.go_on()
        stacks = Path(place) / "stacks"
        asked = {"--pid": worker.pid, "--duration": SECONDS, "--rate": 400, "--format": "raw", "--output": stacks}
        words = [str(word) for option in asked.items() for word in option]
        # A worker that is stopped for each look stops at the end of a system call rather than elsewhere.
        subprocess.run([sampler, "record", "--nonblocking", "--gil", *words], check=True, capture_output=True)
        return stacks.read_text()


def tree(stacks: str) -> Box:
    """The boxes of all stacks; lines of one function are one box."""
    root = Box("worker")
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        names = [re.sub(r":\d+\)$", ")", name) for name in stack.split(";")]
        root.add(names, int(samples))
    return root


def drawn(root: Box) -> str:
    """The picture, the outermost call at the bottom."""
    height = root.depth * HEIGHT
    boxes = "".join(_boxes(root, root.samples, 0.0, height - HEIGHT))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" '
        f'font-size="10"><rect width="100%" height="100%" fill="white"/>{boxes}</svg>\n'
    )


def _boxes(box: Box, of: int, x: float, y: float) -> Iterator[str]:
    width = WIDTH * box.samples / of
    if width < LEAST:
        return
    text = box.name[: int(width / 6.1)] if width > 30 else ""
    yield (
        f'<g><title>{escape(box.name)}: {box.samples / of:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{HEIGHT - 1}" fill="hsl({30 + sum(box.name.encode()) % 30},80%,70%)"/><text x="{x + 2:.1f}" '
        f'y="{y + 11}">{escape(text)}</text></g>'
    )
    for above in sorted(box.above.values(), key=lambda each: each.name):
        yield from _boxes(above, of, x, y - HEIGHT)
        x += WIDTH * above.samples / of


if __name__ == "__main__":
    main()
