"""Python values to JSON text and back, by their annotations. No pickle, ever.

What a step returns live is the recorded text converted back, exactly what replay gives. Whatever JSON or PostgreSQL
could not hold unchanged (NaN, naive datetimes, NUL characters, lone surrogates) is refused with the place where it stands.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import traceback
from collections.abc import Mapping
from datetime import datetime, time
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticSchemaGenerationError, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from pydantic.errors import PydanticUserError

from pgflow.errors import SerializationError

PAYLOAD_LIMIT = 1 << 20
"""The largest payload in bytes of JSON, unless a limit is given."""

_TRACEBACK_LIMIT = 8_000
_MESSAGE_LIMIT = 8_000
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_SCALARS = frozenset({int, bool, type(None)})

_adapters: dict[Any, TypeAdapter[Any]] = {}
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode(value: Any, annotation: Any = Any, *, what: str, limit: int = PAYLOAD_LIMIT) -> str:
    """JSON text of a value.

    Parameters:
        value: what to store.
        annotation: the type by which it will be converted back; Any goes by the value's own type.
        what: whose value it is, for messages: 'result of activity "charge"'.
        limit: the largest text, in bytes of UTF-8.

    Raises:
        SerializationError: the value cannot be stored; the message says where in it and why.

    Example:
        >>> encode({"id": 7}, what="state")
        '{"id":7}'
    """
    if type(value) in _SCALARS:
        text = _dumps(value)
    else:
        text = _dumps(_plain(value, what, "", 0))
    if len(text) * 3 > limit and len(text.encode()) > limit:
        raise SerializationError(
            f"{what} is {len(text.encode()):,} bytes of JSON; expected at most {limit:,}. Store large data elsewhere and pass "
            "a reference to it, or raise the worker's and the client's `payload_limit`."
        )
    if annotation is not Any and type(value) not in _SCALARS:
        _check_returns(text, annotation, what)
    return text


def decode(text: str, annotation: Any = Any, *, what: str) -> Any:
    """The value that a JSON text stands for, converted by its annotation.

    Raises:
        SerializationError: the text does not fit the annotation.

    Example:
        >>> decode('{"id":7}', what="state")
        {'id': 7}
    """
    if annotation is Any or annotation is None or annotation is type(None):
        return json.loads(text)
    try:
        return _adapter(annotation, what).validate_json(text)
    except PydanticValidationError as error:
        raise SerializationError(
            f"{what} does not fit {_type_name(annotation)}: {_first_problem(error)}. Stored: {text[:200]}. Has the annotation "
            "changed since the value was stored? Accept the old form too."
        ) from error


def encode_error(error: BaseException) -> str:
    """JSON text of an exception: its class, its message and its traceback, each bounded."""
    lines = "".join(traceback.format_exception(error))
    return _dumps(
        {
            "type": type(error).__name__,
            "message": _printable(str(error))[:_MESSAGE_LIMIT],
            "traceback": _printable(lines)[-_TRACEBACK_LIMIT:],
        }
    )


def decode_error(text: str) -> dict[str, Any]:
    """What `encode_error` stored."""
    told = json.loads(text)
    return told if isinstance(told, dict) else {"type": "Exception", "message": str(told)}


def _printable(text: str) -> str:
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _plain(value: Any, what: str, path: str, depth: int) -> Any:
    """`value` as JSON has it, or the error that says where it cannot be."""
    kind = type(value)
    if kind is str:
        return _text(value, what, path)
    if kind in _SCALARS:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise _refused(what, path, f"{value} has no JSON form", "store None or a text instead")
        return value
    if depth > 200:
        raise _refused(what, path, "nested more than 200 deep", "does it contain itself?")
    if kind is list or kind is tuple:
        return [_plain(item, what, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
    if kind is dict:
        return {
            _key(key, what, path): _plain(item, what, f"{path}.{key}", depth + 1)
            for key, item in value.items()
        }
    return _rich(value, what, path, depth)


def _rich(value: Any, what: str, path: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return _plain(value.value, what, path, depth + 1)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise _refused(
                what, path, "a datetime without a time zone", "use datetime(..., tzinfo=timezone.utc)"
            )
        return value.isoformat()
    if isinstance(value, time) and value.tzinfo is not None and value.utcoffset() is None:
        raise _refused(what, path, "a time whose zone needs a date", "store a datetime")
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, str):
        return _text(str(value), what, path)
    if isinstance(value, BaseModel):
        model: Any = {
            name: _plain(getattr(value, name), what, f"{path}.{name}", depth + 1)
            for name in type(value).model_fields
        }
        for name, item in (value.model_extra or {}).items():
            model[name] = _plain(item, what, f"{path}.{name}", depth + 1)
        return model
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), what, f"{path}.{field.name}", depth + 1)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {
            _key(key, what, path): _plain(item, what, f"{path}.{key}", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        items = value
        if isinstance(value, set | frozenset):
            items = sorted(value, key=repr)  # the same text every time
        return [_plain(item, what, f"{path}[{i}]", depth + 1) for i, item in enumerate(items)]
    try:
        dumped = _adapter(type(value), what).dump_python(value, mode="json")
    except (SerializationError, ValueError, TypeError) as error:
        raise _refused(
            what,
            path,
            f"a {_type_name(type(value))} has no JSON form",
            "return plain data, a dataclass or a pydantic model",
        ) from error
    if type(dumped) is float:
        return _plain(dumped, what, path, depth + 1)
    return dumped if type(dumped) is not str else _text(dumped, what, path)


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
    if isinstance(key, int):
        return str(key)
    try:
        text = _adapter(type(key), what).dump_python(key, mode="json")
    except (SerializationError, ValueError, TypeError):
        text = None
    if not isinstance(text, str):
        raise _refused(what, path, f"the key {key!r} is no text", "use text keys")
    return text


def _check_returns(text: str, annotation: Any, what: str) -> None:
    try:
        _adapter(annotation, what).validate_json(text)
    except PydanticValidationError as error:
        raise SerializationError(
            f"{what} does not fit its annotation {_type_name(annotation)}: {_first_problem(error)}. It could not be converted "
            "back. Change the value or the annotation."
        ) from error


def _adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    try:
        return _adapters[annotation]
    except KeyError:
        adapter = _make_adapter(annotation, what)
        _adapters[annotation] = adapter
        return adapter
    except TypeError:
        return _make_adapter(annotation, what)  # an annotation that cannot be hashed


def _make_adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    try:
        try:
            return TypeAdapter(annotation, config=_CONFIG)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise SerializationError(
            f"{what}: values of {_type_name(annotation)} cannot be converted to JSON and back. Use plain data, a dataclass or "
            f"a pydantic model. ({error})"
        ) from error


def _refused(what: str, path: str, found: str, advice: str) -> SerializationError:
    where = f" at {path.lstrip('.')}" if path else ""
    return SerializationError(f"{what} cannot be stored: found{where} {found}; {advice}.")


def _first_problem(error: PydanticValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{problem['msg']}{f' (at {where})' if where else ''}"


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)
