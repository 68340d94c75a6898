"""JSON that PostgreSQL stores and Python does not read: numbers of thousands of digits or thousands of nested brackets,
written by SQL.

parsed   for the engine: the value, or the text as `UnreadableText`, which fails the one workflow that needs it
shown    for people: as much as can be read, and the rest as text
"""

from __future__ import annotations

import json
import math
from typing import Any

_SHOWN = 10_000
"""Characters of what is shown as text."""


class UnreadableText(str):
    """The text of what Python does not read."""

    __slots__ = ()


def parsed(text: str | bytes) -> Any:
    """The value of a JSON text, or its text.

    Example:
        >>> parsed('{"a": 1}')
        {'a': 1}
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return UnreadableText(text if isinstance(text, str) else bytes(text).decode(errors="replace"))


def shown(value: Any) -> Any:
    """What `parsed` gave, for people to read: numbers that Python does not read become texts, and so does the whole
    value if it is nested too deeply.
    """
    if not isinstance(value, UnreadableText):
        return value
    try:
        return json.loads(value, parse_int=_integer, parse_float=_float)
    except (ValueError, RecursionError) as error:
        return f"unreadable ({error}): {value[:_SHOWN]}"


def shown_object(value: Any) -> dict[str, Any]:
    """As `shown`, for what should be an object: anything else is put into one."""
    found = shown(value)
    return found if isinstance(found, dict) else {"unreadable": found}


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits[:_SHOWN]


def _float(digits: str) -> float | str:
    number = float(digits)
    return number if math.isfinite(number) else digits[:_SHOWN]
