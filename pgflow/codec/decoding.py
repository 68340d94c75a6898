"""JSON text to values, by their annotations: pydantic's work, with one configuration for classes that have none of
their own.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic import ValidationError as PydanticValidationError
from pydantic.errors import PydanticUserError
from typing_extensions import TypeAliasType

from pgflow.codec.stored_errors import described
from pgflow.errors import SerializationError

_ADAPTERS = 10_000
"""The most converters that are kept: a program that keeps making classes must not grow for ever."""

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
_adapters: dict[Any, TypeAdapter[Any]] = {}
_seen: dict[int, tuple[Any, TypeAdapter[Any]]] = {}
"""Converters by the annotation's identity, which is kept alive by standing here."""


class ConversionError(Exception):
    """A text that cannot be converted, or whose value is not the one that was given; the cause is what conversion
    raised.
    """


def decode(text: str, annotation: Any = Any, *, what: str) -> Any:
    """The value that a JSON text stands for, converted by its annotation.

    Args:
        text: what `encode` gave, or a client wrote.
        annotation: the type to convert to; Any gives plain data.
        what: whose value it is, for messages.

    Raises:
        SerializationError: the text does not fit the annotation, or Python does not read it.

    Example:
        >>> decode('{"id":7}', what="state")
        {'id': 7}
    """
    try:
        if annotation is int or annotation is str or annotation is bool or annotation is float:
            value = loads(text)
            if type(value) is annotation:
                return value
        elif annotation is Any or annotation is None or annotation is type(None):
            return loads(text)
    except (ValueError, RecursionError) as error:  # thousands of digits or brackets, which PostgreSQL takes
        raise SerializationError(f"{what} cannot be read: {error}. Stored: {text[:200]}") from error
    try:
        return converted(text, annotation, what)
    except ConversionError as error:
        raise SerializationError(
            f"{what} does not fit {type_name(annotation)}: {error}. Stored: {text[:200]}. Has the annotation "
            "changed since the value was stored? Accept the old form too."
        ) from error.__cause__


_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # undocumented, and older than asyncio


def loads(text: str) -> Any:
    """`json.loads` but for white space around a text, on which it spends most of its time when the text is short."""
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def converted(text: str, annotation: Any, what: str) -> Any:
    """The value that a text gives.

    Raises:
        ConversionError: it does not fit.
        SerializationError: nothing can be converted to this annotation.
    """
    found = adapter(annotation, what)
    try:
        return found.validate_json(text, by_alias=True, by_name=True)
    except PydanticValidationError as error:
        raise ConversionError(_first_problem(error)) from error
    except BaseException as error:  # a validator or __post_init__ of the application may raise anything
        raise ConversionError(described(error)) from error


def adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    """The converter for the values of an annotation.

    Raises:
        SerializationError: nothing can.
    """
    seen = _seen.get(id(annotation))
    if seen is not None and seen[0] is annotation:
        return seen[1]
    # Python finds `str | bytes` equal to `bytes | str`, which convert differently: their texts tell them apart.
    key = annotation if isinstance(annotation, type) else (annotation, repr(annotation))
    try:
        found = _adapters.get(key)
    except TypeError:
        return _make_adapter(annotation, what)  # an annotation that cannot be hashed
    if found is None:
        found = _make_adapter(annotation, what)
        if len(_adapters) >= _ADAPTERS:
            _adapters.clear()
        _adapters[key] = found
    if len(_seen) >= _ADAPTERS:
        _seen.clear()
    _seen[id(annotation)] = annotation, found
    return found


def _make_adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    try:
        try:
            return TypeAdapter(annotation, config=_CONFIG)
        except PydanticUserError as error:
            if error.code != "type-adapter-config-unused":
                raise
            # Behind an alias, classes without a configuration of their own take ours.
            alias: Any = TypeAliasType("alias", annotation)
            return TypeAdapter(alias, config=_CONFIG)
    except Exception as error:  # an application's classes may describe themselves to pydantic, and fail to
        raise SerializationError(
            f"{what}: values of {type_name(annotation)} cannot be converted to JSON and back. Use plain data, a "
            f"dataclass or a pydantic model. ({described(error)})"
        ) from error


def type_name(annotation: Any) -> str:
    """An annotation, for messages."""
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation)


def _first_problem(error: PydanticValidationError) -> str:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{problem['msg']}{f' (at {where})' if where else ''}"
