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
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from pydantic.errors import PydanticUserError
from typing_extensions import TypeAliasType

from pgflow.errors import SerializationError

PAYLOAD_LIMIT = 1 << 20
"""The largest payload in bytes of JSON, unless a limit is given."""

_TRACEBACK_LIMIT = _MESSAGE_LIMIT = 8_000
_DEEPEST = 200
_LONGEST_INTEGER = 14_000
"""Bits: Python does not read numbers of more than 4,300 digits."""

_ADAPTERS = 10_000
"""Converters that are kept; programs that make classes all the time must not grow for ever."""

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
OWN_TYPE = frozenset({str, int, float, bool})
_LEAVES = OWN_TYPE | {type(None)}
_STRUCTURED = ("'type': 'model'", "'type': 'dataclass'", "'type': 'typed-dict'")


class _Converter(NamedTuple):
    """What converts the values of one annotation."""

    adapter: TypeAdapter[Any]
    structured: bool
    """Whether there are classes in it: they may drop what they do not know."""


_converters: dict[Any, _Converter] = {}
_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_quote: Callable[[str], str] = json.encoder.encode_basestring


def _fast_dumps() -> Callable[[Any], str]:
    """The encoder that `_dumps` makes anew at every call, made once where the interpreter has it in C."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return _dumps
    encoder = make(None, None, _quote, None, ":", ",", False, False, False)

    def dumps(value: Any) -> str:
        return "".join(encoder(value, 0))

    return dumps


_dumps_simple = _fast_dumps()


def encode(value: Any, annotation: Any = Any, *, what: str, limit: int = PAYLOAD_LIMIT) -> str:
    """JSON text of a value.

    Parameters:
        value: what to store.
        annotation: the type by which it will be converted back; Any goes by the value's own type.
        what: whose value it is, for messages: 'result of activity "charge"'.
        limit: the largest text, in bytes of UTF-8.

    Raises:
        SerializationError: the value cannot be stored, or not be converted back; the message says where in it and why.

    Example:
        >>> encode({"id": 7}, what="state")
        '{"id":7}'
    """
    kind = type(value)
    if kind is str:
        text = _quote(_text(value, what, ""))
    elif kind is int and -(1 << 63) < value < 1 << 63:
        text = int.__repr__(value)
    else:
        text = _simple_text(value, kind) or _dumps(_plain(value, what, "", 0))
    if len(text) * 3 > limit and len(text.encode()) > limit:
        raise SerializationError(
            f"{what} is {len(text.encode()):,} bytes of JSON; expected at most {limit:,}. Store large data elsewhere and pass "
            "a reference to it, or raise the worker's and the client's `payload_limit`."
        )
    if not (annotation is kind and kind in OWN_TYPE or annotation is Any or annotation is None is value):
        _check_returns(value, text, annotation, what)
    return text


def decode(text: str, annotation: Any = Any, *, what: str) -> Any:
    """The value that a JSON text stands for, converted by its annotation.

    Raises:
        SerializationError: the text does not fit the annotation.

    Example:
        >>> decode('{"id":7}', what="state")
        {'id': 7}
    """
    if annotation is int or annotation is str or annotation is bool or annotation is float:
        value = loads(text)
        if type(value) is annotation:
            return value
    elif annotation is Any or annotation is None or annotation is type(None):
        return loads(text)
    try:
        return _converted(text, annotation, what)
    except _Unfit as error:
        raise SerializationError(
            f"{what} does not fit {_type_name(annotation)}: {error}. Stored: {text[:200]}. Has the annotation "
            "changed since the value was stored? Accept the old form too."
        ) from error.__cause__


_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # undocumented, and older than asyncio


def loads(text: str) -> Any:
    """`json.loads`, which for a short text spends most of its time on the white space around it."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def encode_error(error: BaseException) -> str:
    """JSON text of an exception: its class, its message and its traceback, each bounded."""
    lines = "".join(traceback.format_exception(error))
    return _dumps(
        {
            "type": type(error).__name__,
            "message": _printable(_message(error))[:_MESSAGE_LIMIT],
            "traceback": _printable(lines)[-_TRACEBACK_LIMIT:],
        }
    )


def decode_error(text: str) -> dict[str, Any]:
    """What `encode_error` stored."""
    told = json.loads(text)
    return told if isinstance(told, dict) else {"type": "Exception", "message": str(told)}


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} whose message cannot be had>"


def _printable(text: str) -> str:
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _simple_text(value: Any, kind: type) -> str | None:
    """The text of plain containers and scalars, or None: look closer, it may be refused."""
    if kind not in _LEAVES and not _is_simple(value, kind, 0):
        return None
    try:
        text = _dumps_simple(value)
        if not text.isascii():
            text.encode()
    except (ValueError, RecursionError):  # NaN, a lone surrogate, an endless number
        return None
    return None if "\\u0000" in text else text


def _is_simple(value: Any, kind: type, depth: int) -> bool:
    if depth > _DEEPEST:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return False
            inner = type(item)
            if inner not in _LEAVES and not _is_simple(item, inner, depth + 1):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:
            inner = type(item)
            if inner not in _LEAVES and not _is_simple(item, inner, depth + 1):
                return False
        return True
    return False


def _plain(value: Any, what: str, path: str, depth: int) -> Any:
    """`value` as JSON has it, or the error that says where it cannot be."""
    kind = type(value)
    if kind is str:
        return _text(value, what, path)
    if kind is bool or value is None:
        return value
    if kind is int:
        return _integer(value, what, path)
    if kind is float:
        return _finite(value, what, path)
    if depth > _DEEPEST:
        raise _refused(what, path[:80], f"values nested more than {_DEEPEST} deep", "does it contain itself?")
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
        dumped = _converter(type(value), what).adapter.dump_python(value, mode="json")
    except Exception as error:  # whatever a class's own conversion raises
        raise _no_form(value, what, path) from error
    if type(dumped) not in _LEAVES and type(dumped) is not list and type(dumped) is not dict:
        raise _no_form(value, what, path)
    return _plain(dumped, what, path, depth + 1)


def _own_form(value: Any, serializer: Any, what: str, path: str, depth: int) -> Any:
    """A pydantic class knows its form best: by the names of its fields, with serializers that it declares.

    Once as Python, to find what the form in JSON would hide: naive datetimes, secrets.
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
            f"a {_type_name(type(value))} that pydantic cannot write as JSON ({error})",
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
            raise _refused(
                what, path, "a datetime without a time zone", "use datetime(..., tzinfo=timezone.utc)"
            )
    elif isinstance(value, time):
        if value.tzinfo is not None and value.utcoffset() is None:
            raise _refused(what, path, "a time whose zone needs a date", "store a datetime")
    elif isinstance(value, Decimal):
        if not value.is_finite():
            raise _refused(what, path, f"Decimal {value}", "store None or a text instead")
    elif hasattr(type(value), "get_secret_value"):
        raise _refused(
            what, path, f"a {_type_name(type(value))}", "history is for people to read: pass a reference to the secret"
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
    found = f"the class {_type_name(value)}" if isinstance(value, type) else f"a {_type_name(type(value))}"
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
    text = None if key is None or isinstance(key, float) else _plain(key, what, path, _DEEPEST)
    if isinstance(text, int):
        return str(text)
    if not isinstance(text, str):
        raise _refused(what, path, f"the key {key!r}, which is no text", "use text keys")
    return text


class _Unfit(Exception):
    """A text that cannot be converted; the cause is what conversion raised."""


def _converted(text: str, annotation: Any, what: str) -> Any:
    adapter = _converter(annotation, what).adapter
    try:
        return adapter.validate_json(text, by_alias=True, by_name=True)
    except PydanticValidationError as error:
        raise _Unfit(_first_problem(error)) from error
    except Exception as error:  # a validator's or a __post_init__'s own
        raise _Unfit(f"{type(error).__name__}: {error}") from error


def _check_returns(value: Any, text: str, annotation: Any, what: str) -> None:
    try:
        back = _converted(text, annotation, what)
        if type(value) in _LEAVES or _converter(annotation, what).structured:
            lost = _lost(value, back, "")
            if lost:
                raise _Unfit(lost)
    except _Unfit as error:
        raise SerializationError(
            f"{what} does not fit its annotation {_type_name(annotation)}: {error}. It could not be converted "
            "back. Change the value or the annotation."
        ) from error.__cause__


def _lost(value: Any, back: Any, path: str) -> str | None:
    """What of a value its annotation drops, if it drops something; replay would not see it."""
    at = f" at {path.lstrip('.')}" if path else ""
    kind = type(value)
    if kind in _LEAVES:
        if kind in (int, float) and type(back) in (int, float) and value != back:
            return f"the number {value}{at} would become {back}"
        return None
    if _is_structured(value):
        if not _is_structured(back):
            return None
        if not isinstance(back, kind):
            return f"a {kind.__qualname__}{at} would come back as a {type(back).__qualname__}"
        return _lost_fields(value, back, path)
    if isinstance(value, Mapping) and isinstance(back, Mapping):
        if len(back) < len(value):
            unknown = next((key for key in value if key not in back), "...")
            return f'"{unknown}"{at} would be dropped'
        pairs = [(str(key), item, back[key]) for key, item in value.items() if key in back]
        return _first_lost([(f"{path}.{key}", item, other) for key, item, other in pairs])
    if isinstance(value, list | tuple) and isinstance(back, list | tuple) and len(value) == len(back):
        return _first_lost(
            [(f"{path}[{i}]", item, other) for i, (item, other) in enumerate(zip(value, back, strict=True))]
        )
    return None


def _lost_fields(value: Any, back: Any, path: str) -> str | None:
    if isinstance(value, BaseModel):
        names = list(type(value).model_fields)
    else:
        names = [field.name for field in dataclasses.fields(value)]
        for field in dataclasses.fields(value):
            if not field.init and getattr(value, field.name, None) != getattr(back, field.name, None):
                return f"{path}.{field.name} is no argument of {type(value).__qualname__} (init=False) and would be lost".lstrip(".")
    return _first_lost(
        [(f"{path}.{name}", getattr(value, name, None), getattr(back, name, None)) for name in names]
    )


def _first_lost(pairs: list[tuple[str, Any, Any]]) -> str | None:
    for path, item, other in pairs:
        if lost := _lost(item, other, path):
            return lost
    return None


def _is_structured(value: Any) -> bool:
    return isinstance(value, BaseModel) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _converter(annotation: Any, what: str) -> _Converter:
    try:
        return _converters[annotation]
    except KeyError:
        converter = _make_converter(annotation, what)
        if len(_converters) >= _ADAPTERS:
            _converters.clear()
        _converters[annotation] = converter
        return converter
    except TypeError:
        return _make_converter(annotation, what)  # an annotation that cannot be hashed


def _make_converter(annotation: Any, what: str) -> _Converter:
    try:
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(annotation, config=_CONFIG)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            # Behind an alias, classes without a configuration of their own take ours.
            alias: Any = TypeAliasType("alias", annotation)
            adapter = TypeAdapter(alias, config=_CONFIG)
        shape = repr(adapter.core_schema)
    except (PydanticUserError, NameError, TypeError) as error:
        raise SerializationError(
            f"{what}: values of {_type_name(annotation)} cannot be converted to JSON and back. Use plain data, a dataclass or "
            f"a pydantic model. ({error})"
        ) from error
    return _Converter(adapter, any(mark in shape for mark in _STRUCTURED))


def _refused(what: str, path: str, found: str, advice: str) -> SerializationError:
    where = f" at {path.lstrip('.')}" if path else ""
    return SerializationError(f"{what} cannot be stored: found{where} {found}; {advice}.")


def _first_problem(error: PydanticValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{problem['msg']}{f' (at {where})' if where else ''}"


def _type_name(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)
