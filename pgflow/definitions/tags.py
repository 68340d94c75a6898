"""Tags: flat JSON objects by which workflows are found and messages are chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pgflow.codec import encode
from pgflow.errors import SerializationError

LIMIT = 16_384
"""The most bytes of JSON that tags may have, unless a limit is given."""

TagSet = frozenset[tuple[str, type, Any]]
"""Tags in a form in which containment means subset: names, the types of their values, the values."""


def tags_text(tags: Mapping[str, Any] | None, limit: int = LIMIT) -> str:
    """Tags as JSON.

    Raises:
        ValueError: they are no flat object.
        SerializationError: a value cannot be stored, or they are larger than `limit` bytes.
    """
    if tags is None:
        return "{}"
    if not isinstance(tags, Mapping):
        raise ValueError(f"tags={tags!r}: expected a flat mapping of names to texts, numbers, booleans or None")
    for name, value in tags.items():
        if not isinstance(name, str) or not (value is None or isinstance(value, str | int | float | bool)):
            raise ValueError(
                f"tags: {name!r}: {value!r} is not flat; expected texts as names and texts, numbers, booleans or None "
                "as values"
            )
    text = encode(dict(tags), what="tags", same=False)
    if len(text.encode()) > limit:
        raise SerializationError(f"tags are {len(text.encode()):,} bytes of JSON; expected at most {limit:,}")
    return text


def tag_set(text: str) -> TagSet:
    """Tags in a form to compare with others as PostgreSQL's `jsonb` does: by value, however a number is written.

    Args:
        text: what `tags_text` or a `jsonb` column gives.

    Raises:
        ValueError: it is no flat JSON object.

    Example:
        >>> tag_set('{"customer": 7}') <= tag_set('{"customer": 7.0, "region": "eu"}')
        True
    """
    try:
        tags = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    except RecursionError:
        tags = None
    if not isinstance(tags, dict) or any(isinstance(value, list | dict) for value in tags.values()):
        raise ValueError(f"tags {text[:100]!r}: expected a flat JSON object")
    return frozenset((name, type(value), value) for name, value in tags.items())
