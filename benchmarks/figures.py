"""What is measured: figures with one value a run, and their medians."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity, measured several times.

    Args:
        name: what it is.
        unit: of the values, e.g. "1/s"; "x" is a ratio of two that were measured side by side.
        values: one for each run.
        note: what a reader has to know about it.

    Example:
        Figure("durable steps", "1/s", [20_110.0, 19_874.0, 20_403.0])
    """

    name: str
    unit: str
    values: Sequence[float]
    note: str = ""

    @property
    def median(self) -> float:
        """The middle one of the values."""
        return median(self.values)


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], note: str = "") -> Figure:
    """Run by run, the first divided by the second."""
    return Figure(name, "x", [one / other for one, other in zip(ours, theirs, strict=True)], note)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least so large a share of all does not exceed.

    Example:
        percentile(latencies, 0.99)
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def shown(value: float) -> str:
    """A number for people: three or four digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 1:
        return f"{value:.2f}"
    return f"{value:.4f}"
