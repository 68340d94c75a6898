"""Exceptions as JSON text: class, message and traceback, each bounded.

An exception is user code just as the code that raises it: formatting it may raise anything, take for ever (groups may
share members in 2 ** 40 ways) or give gigabytes. So as much is stored as can be got.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from typing import Any

from pgflow.codec.exception_groups import inside, is_group

_MESSAGE_LIMIT = _TRACEBACK_LIMIT = 8_000
"""Characters."""

_TOGETHER = 64
"""The most exceptions, with causes and members of groups, in one traceback."""

_ALONE = 1_000
"""Characters of the message of an exception that is stored alone, so that its frames can be seen before it."""

_FRAMES = 200
"""Frames of the traceback of an exception that is stored alone."""

_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode_error(error: BaseException) -> str:
    """JSON text of an exception: its class, its message and its traceback, each bounded.

    Example:
        >>> encode_error(ValueError("no"))
        '{"type":"ValueError","message":"no","traceback":"ValueError: no\\\\n"}'
    """
    return _dumps(
        {"type": class_name(error), "message": message_of(error), "traceback": traceback_of(error)[-_TRACEBACK_LIMIT:]}
    )


def encode_timeout(message: str, seconds: float) -> str:
    """The same of a workflow whose deadline has passed: an error that nobody has raised."""
    whole = int(seconds)
    timeout = whole if whole == seconds else seconds  # as the database writes it
    return _dumps({"type": "WorkflowTimeout", "message": message, "timeout": timeout})


def decode_error(text: str) -> dict[str, Any]:
    """What `encode_error` stored; what cannot be read is shown as its text."""
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        stored = text[:_MESSAGE_LIMIT]
    return stored if isinstance(stored, dict) else {"type": "Exception", "message": str(stored)}


def class_name(error: BaseException) -> str:
    """The name of an exception's class, whatever its metaclass says."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return printable(name, _MESSAGE_LIMIT)


def message_of(error: BaseException) -> str:
    """An exception's message, bounded and printable."""
    try:
        return printable(str(error), _MESSAGE_LIMIT)
    except BaseException:  # noqa: BLE001 — an exception's own code may raise anything, even SystemExit
        return f"<{class_name(error)} whose message cannot be had>"


def described(error: BaseException) -> str:
    """Class and message, for messages and logs."""
    return f"{class_name(error)}: {message_of(error)}"


def traceback_of(error: BaseException) -> str:
    """An exception's traceback as Python prints it; a shorter one where that would be endless, or fails."""
    try:
        if _is_small(error):
            return printable("".join(traceback.format_exception(error)))
    except BaseException:  # noqa: BLE001 — as above
        pass
    try:
        frames = traceback.format_tb(BaseException.__dict__["__traceback__"].__get__(error), -_FRAMES)
    except BaseException:  # noqa: BLE001 — source files may be found by loaders of the application
        frames = []
    head = ["Traceback (most recent call last):\n"] if frames else []
    return printable("".join([*head, *frames, f"{class_name(error)}: {message_of(error)[:_ALONE]}\n"]))


def printable(text: str, limit: int | None = None) -> str:
    """Text that PostgreSQL can store, whatever its class makes of it, cut at so many characters."""
    cut = str.__getitem__(text, slice(limit))
    return str.replace(cut, "\0", "\\0").encode(errors="backslashreplace").decode()


def _is_small(error: BaseException) -> bool:
    """Whether Python's own formatting would end soon."""
    for number, one in enumerate(_everything_in(error)):
        if number >= _TOGETHER or len(str(one)) > _MESSAGE_LIMIT or len(getattr(one, "__notes__", ())) > _TOGETHER:
            return False
    return True


def _everything_in(error: BaseException) -> Iterator[BaseException]:
    """Everything that a traceback would show, as often as it would show it: causes and contexts once, members of groups
    each time.
    """
    chained: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        yield one
        for other in (one.__cause__, one.__context__):
            if other is not None and id(other) not in chained:
                chained.add(id(other))
                waiting.append(other)
        if is_group(one):
            waiting.extend(inside(one))
