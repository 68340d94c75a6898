"""What is sent: `@signal` and `@message` on a dataclass or a pydantic model."""

from __future__ import annotations

from typing import Any


def signal_name(kind: Any, where: str) -> str:
    """The name of a signal's class.

    Args:
        kind: a class declared by `@signal`.
        where: who asks, for messages.

    Raises:
        TypeError: it is none.
    """
    return _packet_name(kind, "signal", where)


def message_name(kind: Any, where: str) -> str:
    """The name of a message's class.

    Args:
        kind: a class declared by `@message`.
        where: who asks, for messages.

    Raises:
        TypeError: it is none.
    """
    return _packet_name(kind, "message", where)


def _packet_name(kind: Any, sort: str, where: str) -> str:
    name = vars(kind).get(f"__pgflow_{sort}__") if isinstance(kind, type) else None
    if not isinstance(name, str):
        raise TypeError(f"{where}: expected a class declared by @pgflow.{sort}, found {kind!r}")
    return name
