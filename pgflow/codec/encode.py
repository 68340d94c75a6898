"""Values to JSON text: what is stored, or why it cannot be."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

from pgflow.codec.decoding import ConversionError, adapter, converted, loads, type_name
from pgflow.codec.exact import DEEPEST, LEAVES, is_exact, is_plain
from pgflow.codec.same import difference
from pgflow.codec.stored_errors import described
from pgflow.errors import SerializationError

PAYLOAD_LIMIT = 1 << 20
"""The largest payload in bytes of JSON, unless a limit is given."""

_LONGEST_INTEGER = 14_000
"""Bits: Python does not read numbers of more than 4,300 digits."""

OWN_TYPE = frozenset({str, int, float, bool})
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_quote: Callable[[str], str] = json.encoder.encode_basestring


def _fast_dumps() -> Callable[[Any], str]:
    """The encoder that `_dumps` would make at every call, made once if the interpreter has it in C."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _dumps
    encoder = make(None, None, _quote, None, ":", ",", False, False, False)

    def dumps(value: Any) -> str:
        return "".join(encoder(value, 0))

    return dumps


_dumps_simple = _fast_dumps()


def encode(value: Any, annotation: Any = Any, *, what: str, limit: int = PAYLOAD_LIMIT, same: bool = True) -> str:
    """The JSON text of a value, from which the same value can be read back.

    Args:
        value: what to store.
        annotation: the type by which it will be converted back; Any: not at all, it has to be plain data.
        what: whose value it is, for messages: 'result of activity "charge"'.
        limit: the largest text, in bytes of UTF-8.
        same: whether to check that the same value comes back; False where it is not known here by which type it will be
            converted.

    Raises:
        SerializationError: the value cannot be stored, or would not come back as it is; the message says where in it
            and why.

    Example:
        >>> encode({"id": 7}, what="state")
        '{"id":7}'
    """
    kind = type(value)
    plain = True
    if kind is str:
        text = _quote(_text(value, what, ""))
    elif kind is int and -(1 << 63) < value < 1 << 63:
        text = int.__repr__(value)
    else:
        try:
            found = _simple_text(value, kind, annotation is not Any)
            plain = found is not None
            text = _dumps(_plain(value, what, "", 0)) if found is None else found
        except SerializationError:
            raise
        except BaseException as error:  # a class's own code may raise anything
            raise SerializationError(f"{what} cannot be stored: writing it raised {described(error)}") from error
    if len(text) * 4 > limit:
        check_size(text, limit, what)
    if not (
        annotation is kind
        and kind in OWN_TYPE
        or annotation is Any
        and (plain or not same)
        or annotation is None is value
    ):
        try:
            if is_exact(value, annotation):
                return text
            _check_returns(value, text, annotation, what)
        except SerializationError:
            raise
        except BaseException as error:  # as above: comparisons are a class's own code too
            raise SerializationError(
                f"{what} cannot be compared with what would come back: {described(error)}"
            ) from error
    return text


def check_size(text: str, limit: int, what: str) -> None:
    """Refuse a text that is too large.

    Args:
        limit: bytes of UTF-8.
        what: whose it is, for messages.

    Raises:
        SerializationError: it has more.
    """
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        raise SerializationError(
            f"{what} is {size:,} bytes of JSON; expected at most {limit:,}. Store large data elsewhere and pass "
            "a reference to it, or raise the worker's and the client's `payload_limit`."
        )


def _simple_text(value: Any, kind: type, tuples: bool) -> str | None:
    """The text of plain containers and scalars, and of tuples if they are allowed; None: look closer, the value may
    have to be refused.
    """
    if not is_plain(value, kind, 0, tuples):
        return None
    try:
        text = _dumps_simple(value)
        if not text.isascii():
            text.encode()
    except (ValueError, RecursionError):  # NaN, a lone surrogate, an endless number
        return None
    return None if "\\u0000" in text else text


def _plain(value: Any, what: str, path: str, depth: int) -> Any:
    """`value` in the form that JSON has, or the error that says where that is not possible."""
    kind = type(value)
    if kind is str:
        return _text(value, what, path)
    if kind is bool or value is None:
        return value
    if kind is int:
        return _integer(value, what, path)
    if kind is float:
        return _finite(value, what, path)
    if depth > DEEPEST:
        raise _refused(what, path[:80], f"values nested more than {DEEPEST} deep", "does it contain itself?")
    if kind is list or kind is tuple:
        return [_plain(item, what, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if kind is dict:
        return _object(value, what, path, depth)
    return _rich(value, what, path, depth)


def _object(value: Mapping[Any, Any], what: str, path: str, depth: int) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        name = _key(key, what, path)
        if name in plain:
            raise _refused(what, path, f'two keys that JSON writes alike, "{name}"', "use text keys")
        plain[name] = _plain(item, what, f"{path}.{name}", depth + 1)
    return plain


def _rich(value: Any, what: str, path: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, what, path, depth + 1)
    if isinstance(value, datetime | time | Decimal):
        _check_leaf(value, what, path)
        if isinstance(value, datetime):
            return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, str):
        return _text(str(value), what, path)
    if isinstance(value, int):
        return _integer(int(value), what, path)
    if isinstance(value, float):
        return _finite(float(value), what, path)
    if isinstance(value, type):
        raise _no_form(value, what, path)
    own = getattr(type(value), "__pydantic_serializer__", None)
    if own is not None:
        return _own_form(value, own, what, path, depth)
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name, None), what, f"{path}.{field.name}", depth + 1)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return _object(value, what, path, depth)
    if isinstance(value, list | tuple | deque):
        return [_plain(item, what, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        items = [_plain(item, what, f"{path}[...]", depth + 1) for item in value]
        return sorted(items, key=_dumps)  # the same text every time
    _check_leaf(value, what, path)
    try:
        dumped = adapter(type(value), what).dump_python(value, mode="json")
    except Exception as error:  # whatever a class's own conversion raises
        raise _no_form(value, what, path) from error
    if type(dumped) not in LEAVES and type(dumped) is not list and type(dumped) is not dict:
        raise _no_form(value, what, path)
    return _plain(dumped, what, path, depth + 1)


def _own_form(value: Any, serializer: Any, what: str, path: str, depth: int) -> Any:
    """A pydantic class knows its form best: by the names of its fields, with serializers that it declares.

    It is dumped as Python values first, to find what its form in JSON would hide: naive datetimes, secrets.
    """
    options: dict[str, Any] = {"by_alias": False, "round_trip": True, "warnings": False}
    try:
        _check_leaves(serializer.to_python(value, mode="python", **options), what, path, depth)
        dumped = serializer.to_python(value, mode="json", **options)
    except SerializationError:
        raise
    except Exception as error:
        raise _refused(
            what,
            path,
            f"a {type_name(type(value))} that pydantic cannot write as JSON ({error})",
            "for arbitrary bytes, set ser_json_bytes and val_json_bytes to 'base64' in its model_config",
        ) from error
    return _plain(dumped, what, path, depth + 1)


def _check_leaves(value: Any, what: str, path: str, depth: int) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_leaves(item, what, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for i, item in enumerate(value):
            _check_leaves(item, what, f"{path}[{i}]", depth + 1)
    elif isinstance(value, float):
        _finite(value, what, path)
    else:
        _check_leaf(value, what, path)


def _check_leaf(value: Any, what: str, path: str) -> None:
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _refused(what, path, "a datetime without a time zone", "use datetime(..., tzinfo=timezone.utc)")
    elif isinstance(value, time):
        if value.tzinfo is not None and value.utcoffset() is None:
            raise _refused(what, path, "a time whose zone needs a date", "store a datetime")
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise _refused(what, path, f"Decimal {value}", "store None or a text instead")
    elif hasattr(type(value), "get_secret_value"):
        raise _refused(
            what, path, f"a {type_name(type(value))}", "history is for people to read: pass a reference to the secret"
        )


def _integer(value: int, what: str, path: str) -> int:
    if value.bit_length() > _LONGEST_INTEGER:
        raise _refused(what, path, "an integer of more than 4,000 digits", "store a text or bytes")
    return value


def _finite(value: float, what: str, path: str) -> float:
    if not math.isfinite(value):
        raise _refused(what, path, f"{value}, which has no JSON form", "store None or a text instead")
    return value


def _no_form(value: Any, what: str, path: str) -> SerializationError:
    found = f"the class {type_name(value)}" if isinstance(value, type) else f"a {type_name(type(value))}"
    return _refused(
        what, path, f"{found}, which has no JSON form", "return plain data, a dataclass or a pydantic model"
    )


def _text(value: str, what: str, path: str) -> str:
    if "\0" in value:
        raise _refused(what, path, "a NUL character, which PostgreSQL cannot store", "remove it, or store bytes")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _refused(
                what, path, "a lone surrogate, which is no character", "decode the text properly, or store bytes"
            ) from error
    return value


def _key(key: Any, what: str, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return _text(str(key), what, path)
    if isinstance(key, bool):
        return "true" if key else "false"
    text = None if key is None or isinstance(key, float) else _plain(key, what, path, DEEPEST)
    if isinstance(text, int):
        return str(text)
    if not isinstance(text, str):
        raise _refused(what, path, f"the key {key!r}, which is no text", "use text keys")
    return text


def _check_returns(value: Any, text: str, annotation: Any, what: str) -> None:
    """Check that the same value comes back.

    Raises:
        SerializationError: another one does, or none.
    """
    try:
        if annotation is Any:
            found = difference(value, loads(text))
            advice = "Values without an annotation come back as JSON has them: annotate it, or give plain data."
        else:
            found = difference(value, converted(text, annotation, what))
            advice = "It could not be converted back. Change the value or the annotation."
    except ConversionError as error:
        raise SerializationError(
            f"{what} does not fit its annotation {type_name(annotation)}: {error}. It could not be converted "
            "back. Change the value or the annotation."
        ) from error.__cause__
    if found:
        raise SerializationError(f"{what} does not fit its annotation {type_name(annotation)}: {found}. {advice}")


def _refused(what: str, path: str, found: str, advice: str) -> SerializationError:
    where = f" at {path.lstrip('.')}" if path else ""
    return SerializationError(f"{what} cannot be stored: found{where} {found}; {advice}.")
