"""Counters, gauges and histograms in plain Python, and what they stand at as plain data.

Nothing here knows who reads them: `exposition.py` writes them down for Prometheus, `process_reports.py` sends them to
another process. They are changed by one thread, without a lock, and may be read by any: what is read is a copy that one
operation of the interpreter makes.

Labels are names of workflows and activities, or words from a fixed list: ids would make a series for each workflow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Labels = tuple[str, ...]
"""The values of a meter's labels, in the order of their names."""


class Sample(NamedTuple):
    """What one series stands at.

    `values` is one number; of a histogram: how many values each bucket holds, the last of them those above all bounds,
    and then their sum.
    """

    labels: Labels
    values: Sequence[float]


class Family(NamedTuple):
    """A meter with all its series, as plain data.

    `kind` is counter, gauge or histogram; `bounds` are the upper bounds of a histogram's buckets.
    """

    kind: str
    name: str
    text: str
    labels: Sequence[str]
    samples: Sequence[Sample]
    bounds: Sequence[float] = ()


class Counter:
    """Counts what has happened; it only grows.

    Args:
        name: the metric's name, which ends in `_total`.
        text: what it counts, for people.
        labels: the names of its labels.

    Example:
        ended = Counter("pgflow_workflows_ended_total", "Workflows that have ended.", "workflow", "status")
        ended.add(("checkout", "failed"))
    """

    __slots__ = ("_counts", "_labels", "_name", "_text")

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._counts: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, labels: Labels = (), count: float = 1) -> None:
        """Count `count` more."""
        self._counts[labels] = self._counts.get(labels, 0.0) + count

    def add_all(self, counts: Mapping[Labels, int]) -> None:
        """Count several series at once."""
        for labels, count in counts.items():
            self.add(labels, count)

    def read(self) -> Family:
        """What it stands at now."""
        samples = [Sample(labels, (count,)) for labels, count in self._counts.copy().items()]
        return Family("counter", self._name, self._text, self._labels, samples)


class Histogram:
    """Counts values by their size.

    Args:
        name: the metric's name.
        text: what it measures, for people.
        bounds: the upper bounds of its buckets, ascending.

    Example:
        flushes = Histogram("pgflow_flush_seconds", "How long a commit took.", (0.001, 0.01, 0.1))
        flushes.observe(0.004)
    """

    __slots__ = ("_bounds", "_counts", "_name", "_text")

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._bounds = tuple(bounds)
        self._counts = [0.0] * (len(bounds) + 2)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._counts[-1] += value

    def read(self) -> Family:
        """What it stands at now."""
        return Family("histogram", self._name, self._text, (), [Sample((), tuple(self._counts))], self._bounds)


def gauge(name: str, text: str, values: float | Mapping[Labels, float], *labels: str) -> Family:
    """What something stands at, measured just now.

    Args:
        name: the metric's name.
        text: what it is, for people.
        values: one number, or one for each series.
        labels: the names of its labels.

    Example:
        gauge("pgflow_runs", "Workflows in memory.", {("running",): 3.0}, "state")
    """
    series = values if isinstance(values, Mapping) else {(): values}
    return Family("gauge", name, text, labels, [Sample(key, (value,)) for key, value in series.items()])


def with_label(name: str, value: str, families: Iterable[Family]) -> list[Family]:
    """The same families with one more label, the first, in each of their series."""
    return [
        family._replace(
            labels=(name, *family.labels),
            samples=[Sample((value, *sample.labels), sample.values) for sample in family.samples],
        )
        for family in families
    ]


def merged(families: Iterable[Family]) -> list[Family]:
    """Families of one name, from several processes, as one."""
    found: dict[str, Family] = {}
    for family in families:
        first = found.get(family.name)
        found[family.name] = family if first is None else first._replace(samples=[*first.samples, *family.samples])
    return list(found.values())
