"""As much of PromQL as the alerts and dashboards use, evaluated on scrapes: there is no Prometheus in the tests.

What is not understood is an error, so that nobody writes an expression that is not tested. Known are numbers, selectors
with and without a range, `rate`, `increase`, `histogram_quantile`, `sum`, `min` and `max` with `by`, comparisons,
arithmetic, `and` and `unless` with `on`.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.observe.scraping import Scrape

Labels = frozenset[tuple[str, str]]
Vector = dict[Labels, float]
"""Values by their labels; the name of the metric is not among them."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<text>\"[^\"]*\")|(?P<word>[a-zA-Z_]\w*)|(?P<mark>!=|>=|<=|==|[-+*/<>=(){}\[\],]))"
)
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_BINDING = (("unless", "and"), tuple(_COMPARISONS), ("+", "-"), ("*", "/"))
"""Operators, the loosest first."""


class Moment(NamedTuple):
    """A scrape and its time in seconds."""

    at: float
    scrape: Scrape


def evaluate(text: str, history: Sequence[Moment]) -> Vector:
    """What an expression comes to after the last of these scrapes.

    Raises:
        ValueError: it is none, or uses what is not known here.

    Example:
        evaluate("sum by (queue) (pgflow_queue_due) > 0", [Moment(0.0, scrape)])
    """
    reader = _Reader(text, history)
    found = reader.binary(0)
    if reader.word is not None:
        raise ValueError(f"{text!r}: expected an end before {reader.word!r}")
    return {frozenset(): found} if isinstance(found, float) else found


def metrics_of(text: str) -> set[str]:
    """The metrics that an expression names."""
    return set(re.findall(r"\bpgflow_\w+", text))


class _Reader:
    def __init__(self, text: str, history: Sequence[Moment]) -> None:
        self._text, self._history, self._place = text, history, 0
        self.word: str | None = None
        self._next()

    def _next(self) -> str:
        taken = self.word or ""
        rest = self._text[self._place :]
        if not rest.strip():
            self.word = None
            return taken
        match = _TOKEN.match(rest)
        if match is None:
            raise ValueError(f"{self._text!r}: expected something else than {rest[:20]!r}")
        self._place += match.end()
        self.word = match.group().strip()
        return taken

    def _expect(self, word: str) -> None:
        if self._next() != word:
            raise ValueError(f"{self._text!r}: expected {word!r} before {self._text[self._place :]!r}")

    def binary(self, level: int) -> Vector | float:
        if level == len(_BINDING):
            return self._operand()
        left = self.binary(level + 1)
        while self.word in _BINDING[level]:
            sign = self._next()
            on = None
            if self.word == "on":
                self._next()
                on = self._names()
            left = _combined(sign, left, self.binary(level + 1), on)
        return left

    def _names(self) -> list[str]:
        self._expect("(")
        names = []
        while self.word != ")":
            names.append(self._next())
            if self.word == ",":
                self._next()
        self._next()
        return names

    def _operand(self) -> Vector | float:
        word = self._next()
        if re.fullmatch(r"[\d.]+", word):
            return float(word)
        if word == "(":
            inner = self.binary(0)
            self._expect(")")
            return inner
        if word in ("sum", "min", "max"):
            return self._aggregate(word)
        if word in ("rate", "increase"):
            self._expect("(")
            found = self._change(per_second=word == "rate")
            self._expect(")")
            return found
        if word == "histogram_quantile":
            self._expect("(")
            share = self.binary(0)
            self._expect(",")
            buckets = self.binary(0)
            self._expect(")")
            assert isinstance(share, float) and isinstance(buckets, dict)
            return _quantile(share, buckets)
        if not word.startswith("pgflow_"):
            raise ValueError(f"{self._text!r}: {word!r} is not known here")
        return self._select(self._history[-1].scrape, word, self._matchers())

    def _aggregate(self, word: str) -> Vector:
        by: list[str] = []
        if self.word == "by":
            self._next()
            by = self._names()
        self._expect("(")
        inner = self.binary(0)
        self._expect(")")
        assert isinstance(inner, dict)
        groups: dict[Labels, list[float]] = {}
        for labels, value in inner.items():
            groups.setdefault(frozenset((k, v) for k, v in labels if k in by), []).append(value)
        reduce: Callable[[list[float]], float] = {"sum": sum, "min": min, "max": max}[word]  # type: ignore[assignment]
        return {labels: reduce(values) for labels, values in groups.items()}

    def _matchers(self) -> list[tuple[str, str, str]]:
        found = []
        if self.word == "{":
            self._next()
            while self.word != "}":
                label, sign, value = self._next(), self._next(), self._next().strip('"')
                if sign not in ("=", "!="):
                    raise ValueError(f"{self._text!r}: {sign!r} is not known here")
                found.append((label, sign, value))
                if self.word == ",":
                    self._next()
            self._next()
        return found

    def _change(self, *, per_second: bool) -> Vector:
        name, matchers = self._next(), self._matchers()
        self._expect("[")
        count, unit = self._next(), self._next()
        self._expect("]")
        last = self._history[-1]
        within = [one for one in self._history if one.at >= last.at - int(count) * _SECONDS[unit]]
        found: Vector = {}
        for before, after in zip(within, within[1:], strict=False):
            earlier = self._select(before.scrape, name, matchers)
            for labels, value in self._select(after.scrape, name, matchers).items():
                if labels in earlier:  # one that has just begun has no past, as for Prometheus
                    grown = value - earlier[labels]
                    found[labels] = found.get(labels, 0.0) + (grown if grown >= 0 else value)
        span = last.at - within[0].at
        return {labels: value / span for labels, value in found.items()} if per_second else found

    def _select(self, scrape: Scrape, name: str, matchers: list[tuple[str, str, str]]) -> Vector:
        return {
            frozenset(one.labels.items()): one.value
            for one in scrape.all(name)
            if all((one.labels.get(label, "") == value) == (sign == "=") for label, sign, value in matchers)
        }


def _combined(sign: str, left: Vector | float, right: Vector | float, on: list[str] | None) -> Vector | float:
    def key(labels: Labels) -> Labels:
        return labels if on is None else frozenset((k, v) for k, v in labels if k in on)

    if sign in ("and", "unless"):
        assert isinstance(left, dict) and isinstance(right, dict)
        there = {key(labels) for labels in right}
        return {labels: value for labels, value in left.items() if (key(labels) in there) == (sign == "and")}
    if isinstance(left, float):
        if isinstance(right, float) and sign in _ARITHMETIC:
            return _ARITHMETIC[sign](left, right)
        raise ValueError(f"a number before {sign!r} is not known here")
    pairs = {}
    for labels, value in left.items():
        other = right if isinstance(right, float) else right.get(labels)
        if other is not None:
            pairs[labels] = (value, other)
    if sign in _COMPARISONS:
        return {labels: pair[0] for labels, pair in pairs.items() if _COMPARISONS[sign](*pair)}
    return {labels: _ARITHMETIC[sign](*pair) for labels, pair in pairs.items()}


def _quantile(share: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        groups.setdefault(frozenset((k, v) for k, v in labels if k != "le"), []).append((bound, count))
    found: Vector = {}
    for labels, counts in groups.items():
        counts.sort()
        rank = share * counts[-1][1]
        low, below = 0.0, 0.0
        for bound, count in counts:
            if count >= rank and count > below:
                found[labels] = low if bound == math.inf else low + (bound - low) * (rank - below) / (count - below)
                break
            low, below = bound, count
    return found
