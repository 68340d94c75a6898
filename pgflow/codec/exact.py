"""Values that come back as they are by construction, so that this need not be checked: plain data and plain dataclasses
of exactly the annotated types. Converting them back and comparing would cost several times as much as writing them.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from types import MemberDescriptorType, NoneType, UnionType
from typing import Any, Union, get_args, get_origin

Check = Callable[[Any], bool]

_KEPT = 10_000
"""The most checks that are kept, as for converters."""

_checks: dict[Any, Check | None] = {}
_OWN = frozenset({str, int, bool, float})
LEAVES = _OWN | {NoneType}
DEEPEST = 200
"""How deep values may be nested."""


def is_exact(value: Any, annotation: Any) -> bool:
    """Whether a value is known to come back as it is, without converting it.

    Example:
        >>> is_exact([1, 2], list[int]), is_exact([1, True], list[int])
        (True, False)
    """
    try:
        check = _checks[annotation]
    except KeyError:
        if len(_checks) >= _KEPT:
            _checks.clear()
        check = _checks[annotation] = _checked(annotation)
    except TypeError:
        return False  # an annotation that cannot be hashed
    return check is not None and check(value)


def _checked(annotation: Any) -> Check | None:
    try:
        return _check(annotation, ())
    except TypeError:  # a part of it cannot be hashed
        return None


def _check(annotation: Any, around: tuple[type, ...]) -> Check | None:
    """The check for values of an annotation; None: there is none."""
    if annotation is Any:
        return lambda value: is_plain(value, type(value))
    if annotation in _OWN:
        return lambda value: type(value) is annotation
    if annotation is None or annotation is NoneType:
        return lambda value: value is None
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        inner = [_check(part, around) for part in parts if part is not NoneType]
        only = inner[0] if len(inner) == 1 else None
        return None if only is None else lambda value: value is None or only(value)
    if annotation is list or annotation is dict:
        return _plain_of(annotation)
    if origin in (list, dict, tuple):
        return _container(origin, parts, around)
    if isinstance(annotation, type) and annotation not in around and _is_plain_dataclass(annotation):
        return _dataclass(annotation, around)
    return None


def is_plain(value: Any, kind: type, depth: int = 0, tuples: bool = False) -> bool:
    """Whether it consists only of what JSON has: dicts with text keys, lists, texts, numbers, booleans and None.

    Args:
        value: what to look at.
        kind: its type.
        depth: how deep it stands.
        tuples: whether tuples count as lists.
    """
    if kind in LEAVES:
        return True
    if depth > DEEPEST:
        return False
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                return False
            inner = type(item)
            if inner not in LEAVES and not is_plain(item, inner, depth + 1, tuples):
                return False
        return True
    if kind is list or (tuples and kind is tuple):
        for item in value:
            inner = type(item)
            if inner not in LEAVES and not is_plain(item, inner, depth + 1, tuples):
                return False
        return True
    return False


def _container(origin: type, parts: tuple[Any, ...], around: tuple[type, ...]) -> Check | None:
    if not parts:  # without its types, as typing writes it
        return _plain_of(origin)
    if origin is dict:
        item = _check(parts[1], around) if parts[0] is str else None
        return None if item is None else _dict_of(item)
    if origin is list or (len(parts) == 2 and parts[1] is Ellipsis):
        item = _check(parts[0], around)
        return None if item is None else _sequence_of(origin, item)
    items = [item for part in parts if (item := _check(part, around)) is not None]
    return _tuple_of(items) if len(items) == len(parts) else None


def _plain_of(kind: type) -> Check | None:
    return None if kind is tuple else lambda value: type(value) is kind and is_plain(value, kind)


def _dict_of(item: Check) -> Check:
    def check(value: Any) -> bool:
        return (
            type(value) is dict
            and all([type(key) is str for key in value])
            and all([item(one) for one in value.values()])
        )

    return check


def _sequence_of(kind: Any, item: Check) -> Check:
    def check(value: Any) -> bool:
        return type(value) is kind and all([item(one) for one in value])

    return check


def _tuple_of(items: list[Check]) -> Check:
    def check(value: Any) -> bool:
        return (
            type(value) is tuple
            and len(value) == len(items)
            and all([each(one) for each, one in zip(items, value, strict=True)])
        )

    return check


def _dataclass(kind: type, around: tuple[type, ...]) -> Check | None:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # an annotation that names what is not there (yet), or cannot be evaluated
        return None
    checks: dict[str, Check] = {}
    for field in dataclasses.fields(kind):
        check = _check(hints.get(field.name), (*around, kind))
        if check is None:
            return None
        checks[field.name] = check
    names = list(checks.items())
    return lambda value: type(value) is kind and all([each(getattr(value, name, _MISSING)) for name, each in names])


_MISSING = object()


def _is_plain_dataclass(kind: Any) -> bool:
    """Whether a dataclass consists of its fields and nothing else: no code of its own takes part, and pydantic has no
    special rules for it.
    """
    own = vars(kind)
    if "__dataclass_fields__" not in own or hasattr(kind, "__post_init__") or type(kind).__call__ is not type.__call__:
        return False
    made = getattr(own.get("__init__"), "__code__", None)
    if made is None or made.co_filename != "<string>":
        return False  # no `__init__` but that which dataclasses makes
    if any(
        name.startswith(("__pydantic", "__get_pydantic", "__get_validators"))
        for each in kind.__mro__
        for name in vars(each)
    ):
        return False
    if (
        kind.__new__ is not object.__new__
        or kind.__getattribute__ is not object.__getattribute__
        or hasattr(kind, "__getattr__")
    ):
        return False
    if kind.__setattr__ is not object.__setattr__ and not kind.__dataclass_params__.frozen:
        return False
    return all(_is_plain_field(kind, field) for field in own["__dataclass_fields__"].values())


def _is_plain_field(kind: type, field: dataclasses.Field[Any]) -> bool:
    if field._field_type is dataclasses._FIELD_CLASSVAR:  # type: ignore[attr-defined]
        return True
    if field._field_type is not dataclasses._FIELD or not field.init or field.metadata:  # type: ignore[attr-defined]
        return False
    standing = kind.__dict__.get(field.name)
    if hasattr(type(standing), "__get__") and not isinstance(standing, MemberDescriptorType):
        return False  # a property, or something else that decides what is read
    return not type(field.default).__module__.startswith("pydantic")
