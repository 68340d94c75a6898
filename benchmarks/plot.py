"""A small line chart as SVG, so that the report needs nothing to be installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, TOP = 720, 150, 90, 30


def plot(title: str, turns: Sequence[int], lines: Mapping[str, Sequence[float]], unit: str = "turn") -> str:
    """One panel a line, below each other, all over the same axis, each from 0 to twice its median.

    Example:
        plot("A loop", [100, 1000], {"ms to wake": [3.1, 3.0]})
    """
    panels = [
        _panel(name, turns, values, TOP + number * (HEIGHT + 40), unit)
        for number, (name, values) in enumerate(lines.items())
    ]
    height = TOP + len(panels) * (HEIGHT + 40) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 40} {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="18" font-weight="bold">'
        f"{escape(title)}</text>{''.join(panels)}</svg>\n"
    )


def _panel(name: str, turns: Sequence[int], values: Sequence[float], top: int, unit: str) -> str:
    highest = 2 * sorted(values)[len(values) // 2] or 1.0
    points = [
        (LEFT + WIDTH * turn / turns[-1], top + HEIGHT * (1 - min(value, highest) / highest))
        for turn, value in zip(turns, values, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f6feb"/>' for x, y in points)
    return (
        f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#ccc"/>'
        f'<text x="{LEFT - 6}" y="{top + HEIGHT / 2}" text-anchor="end">{escape(name)}</text>'
        f'<text x="{LEFT - 6}" y="{top + 12}" text-anchor="end">{highest:.3g}</text>'
        f'<text x="{LEFT - 6}" y="{top + HEIGHT}" text-anchor="end">0</text>'
        f'<text x="{LEFT}" y="{top + HEIGHT + 16}">0</text>'
        f'<text x="{LEFT + WIDTH}" y="{top + HEIGHT + 16}" text-anchor="end">{unit} {turns[-1]:,}</text>'
        f'<polyline points="{path}" fill="none" stroke="#1f6feb" stroke-width="2"/>{dots}'
    )
