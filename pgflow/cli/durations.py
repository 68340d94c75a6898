"""Durations as they are given on the command line: 90s, 15m, 12h, 30d."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from pgflow.definitions.retry import FOREVER

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Duration(click.ParamType[Any]):
    """A whole number and a unit.

    Args:
        forever: whether "forever" will do as well.

    Example:
        click.option("--older-than", type=Duration())     # --older-than 30d
    """

    name = "duration"

    def __init__(self, forever: bool = False) -> None:
        self._forever = forever

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """The duration that was given."""
        text = str(value)
        if isinstance(value, timedelta) or (self._forever and text == FOREVER):
            return value
        number, unit = text[:-1], text[-1:]
        if not (number.isascii() and number.isdigit()) or unit not in _UNITS or len(number) > 9:
            expected = "a whole number and s, m, h, d or w, such as 30d" + (", or forever" if self._forever else "")
            self.fail(f"{text!r}: expected {expected}", parameter, context)
        return timedelta(seconds=int(number) * _UNITS[unit])


def shown(duration: timedelta | str | None) -> str:
    """A duration as it would be given.

    Example:
        shown(timedelta(days=30))     # '30d'
    """
    if not isinstance(duration, timedelta):
        return duration or "-"
    seconds = duration.total_seconds()
    unit = next((unit for unit in ("d", "h", "m") if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"
