"""Databases of another encoding than UTF-8: characters that they lack are escaped in JSON, and refused in any other
text.

A database of encoding SQL_ASCII lacks nothing: it keeps the bytes that it is given, here always UTF-8. In all others a
character that the encoding has no place for would make the server refuse the whole statement. Payloads and errors are
JSON that the server keeps as text: there each character beyond ASCII is written as an escape (a backslash, u, four
digits), which needs no place anywhere. Tags are compared by the server, and names are no JSON: those that cannot be
stored are an error before anything is sent.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import psycopg

from pgflow.errors import SerializationError

_WIDE = (b"UTF8", b"SQL_ASCII", None)
"""Encodings in which nothing is lacking; nobody has said which: nothing is known to be."""

_JSON = frozenset(
    (
        "bodies",
        "error",
        "input",
        "inputs",
        "loop_state",
        "output",
        "outputs",
        "payload",
        "state",
        "states",
        "turn_state",
    )
)
"""Parameters whose texts are JSON, or hold JSON texts, in columns that the server does not look into."""

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")

_lacking: WeakKeyDictionary[psycopg.AsyncConnection[Any] | psycopg.Connection[Any], str] = WeakKeyDictionary()
"""The engine's connections to databases that lack characters, and their encodings."""


class UnstorableText(SerializationError, psycopg.DataError):
    """A text has a character that the database's encoding lacks."""


class ArrayText(str):
    """A text that is the literal of an array, in which a backslash is written twice."""

    __slots__ = ()


def note(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> bool:
    """Find out, once a connection of the engine has been opened, whether its database lacks characters."""
    lacking = lacking_on(connection)
    if lacking is not None:
        _lacking[connection] = lacking
    return lacking is not None


def noted(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> str | None:
    """The encoding of a database that lacks characters, by an engine's connection to it; None: it lacks none."""
    return _lacking.get(connection) if _lacking else None


def lacking_on(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any]) -> str | None:
    """The encoding that lacks characters on any connection, be it the database's or the session's; None: neither lacks
    any.
    """
    pgconn = connection.pgconn
    server, client = pgconn.parameter_status(b"server_encoding"), pgconn.parameter_status(b"client_encoding")
    found = server if server not in _WIDE else client if client not in _WIDE else None
    return None if found is None else found.decode()


def storable(connection: psycopg.AsyncConnection[Any] | psycopg.Connection[Any], parameters: Any) -> Any:
    """A statement's parameters as the database can store them.

    Raises:
        UnstorableText: A text that is no JSON has a character that the database's encoding lacks.
    """
    encoding = lacking_on(connection)
    return parameters if encoding is None or not isinstance(parameters, Mapping) else in_encoding(encoding, parameters)


def in_encoding(encoding: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """As `storable`, for an encoding that lacks characters."""
    return {name: _escaped(value) if name in _JSON else _checked(value, encoding) for name, value in parameters.items()}


def escaped_json(encoding: str | None, text: str) -> str:
    """JSON text as a database that lacks characters keeps it; an encoding of None lacks none.

    Example:
        >>> escaped_json("LATIN1", '"12 €"')
        '"12 \\\\u20ac"'
    """
    return text if encoding is None or text.isascii() else _BEYOND_ASCII.sub(_escape, text)


def _escaped(value: Any) -> Any:
    if isinstance(value, ArrayText):
        return (
            value if value.isascii() else _BEYOND_ASCII.sub(lambda found: _escape(found).replace("\\", "\\\\"), value)
        )
    if isinstance(value, str):
        return value if value.isascii() else _BEYOND_ASCII.sub(_escape, value)
    if isinstance(value, list | tuple):
        return [_escaped(item) for item in value]
    return value


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    if number < 0x10000:
        return f"\\u{number:04x}"
    number -= 0x10000
    return f"\\u{0xD800 | number >> 10:04x}\\u{0xDC00 | number & 0x3FF:04x}"


def _checked(value: Any, encoding: str) -> Any:
    if isinstance(value, str):
        codec = _codec(encoding)
        if codec is not None and not value.isascii():
            try:
                codec.encode(value)
            except UnicodeEncodeError as error:
                raise UnstorableText(
                    f"the encoding {encoding} of the database, or of this connection, has no {value[error.start]!r}, "
                    f"which a text to be stored holds: {value[:200]!r}. Names, queues and tags need characters of "
                    "that encoding; payloads may have any. Choose others, or a database of encoding UTF8."
                ) from None
    elif isinstance(value, list | tuple):
        for item in value:
            _checked(item, encoding)
    return value


@cache
def _codec(encoding: str) -> codecs.CodecInfo | None:
    """Python's codec of that name; None: it has none, and it is left to the server to refuse what it lacks."""
    try:
        return codecs.lookup(re.sub("^(WIN|KOI8)", lambda found: {"WIN": "cp", "KOI8": "koi8-"}[found[1]], encoding))
    except LookupError:
        return None
