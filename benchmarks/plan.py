"""What a scenario is given: the server, and how much to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.server import Server


@dataclass(frozen=True, slots=True)
class Plan:
    """How much a scenario does.

    Args:
        server: where.
        quick: a small part of the work in one run: to see that it works, not to compare.
        repeats: runs of each measurement; medians are reported.
        results: where files beside the report may be written.
        turns: of the long loop, if not as many as usual.
        workflows: that are retained, if not as many as usual.
    """

    server: Server
    quick: bool
    repeats: int
    results: Path
    turns: int | None = None
    workflows: int | None = None

    def scaled(self, number: int, divisor: int = 10) -> int:
        """So many, or a tenth of them (or another part) when it has to be quick."""
        return max(1, number // divisor) if self.quick else number


Scenario = Callable[[Plan], list[Figure]]
