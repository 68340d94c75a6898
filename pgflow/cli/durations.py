"""Durations as they are given on the command line: 90s, 15m, 12h, 30d."""

from __future__ import annotations

from datetime import timedelta

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Duration(click.ParamType[timedelta]):
    """A whole number and a unit.

    Example:
        click.option("--older-than", type=Duration())     # --older-than 30d
    """

    name = "duration"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> timedelta:
        """The duration that was given."""
        if isinstance(value, timedelta):
            return value
        text = str(value)
        number, unit = text[:-1], text[-1:]
        if not (number.isascii() and number.isdigit()) or unit not in _UNITS or len(number) > 9:
            self.fail(f"{text!r}: expected a whole number and s, m, h, d or w, such as 30d", parameter, context)
        return timedelta(seconds=int(number) * _UNITS[unit])
