"""What is sent: `@signal` and `@message` on a dataclass or a pydantic model."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast, overload

from pydantic import BaseModel

from pgflow.definitions.functions import checked_name, place, sort_of

C = TypeVar("C", bound=type)


@overload
def signal(cls: C, /) -> C: ...
@overload
def signal(*, name: str | None = None) -> Callable[[C], C]: ...
def signal(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Declare a dataclass or pydantic model as a signal.

    Parameters:
        name: what it is called in the database; the class name in snake case if not given.

    Raises:
        TypeError: it is neither a dataclass nor a pydantic model.

    Example:
        @pgflow.signal
        @dataclass
        class Approved:
            by: str
    """
    return _packet(cls, name, "signal")


@overload
def message(cls: C, /) -> C: ...
@overload
def message(*, name: str | None = None) -> Callable[[C], C]: ...
def message(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Declare a dataclass or pydantic model as a message.

    Parameters:
        name: what it is called on the wire; the class name in snake case if not given.

    Raises:
        TypeError: it is neither a dataclass nor a pydantic model.

    Example:
        @pgflow.message
        @dataclass
        class Progress:
            done: int
    """
    return _packet(cls, name, "message")


def signal_name(kind: Any, where: str) -> str:
    """The name of a signal's class.

    Parameters:
        kind: a class declared by `@signal`.
        where: who asks, for messages.

    Raises:
        TypeError: it is none.
    """
    return _packet_name(kind, "signal", where)


def message_name(kind: Any, where: str) -> str:
    """The name of a message's class.

    Parameters:
        kind: a class declared by `@message`.
        where: who asks, for messages.

    Raises:
        TypeError: it is none.
    """
    return _packet_name(kind, "message", where)


def _packet(cls: Any, name: str | None, sort: str) -> Any:
    def decorate(found: Any) -> Any:
        if not isinstance(found, type) or not (dataclasses.is_dataclass(found) or issubclass(found, BaseModel)):
            raise TypeError(
                f"@pgflow.{sort} on {place(found)}: expected a dataclass or a pydantic model, found {sort_of(found)}. "
                f"Put @pgflow.{sort} above @dataclass."
            )
        chosen = checked_name(_snake(found.__name__) if name is None else name, sort)
        setattr(cast(Any, found), f"__pgflow_{sort}__", chosen)
        return found

    return decorate if cls is None else decorate(cls)


def _packet_name(kind: Any, sort: str, where: str) -> str:
    name = vars(kind).get(f"__pgflow_{sort}__") if isinstance(kind, type) else None
    if not isinstance(name, str):
        raise TypeError(f"{where}: expected a class declared by @pgflow.{sort}, found {kind!r}")
    return name


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
