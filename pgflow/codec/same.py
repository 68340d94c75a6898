"""Whether what came back is what was given: equal and of the same type, everywhere in it."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel

_SHOWN = 60
"""Characters of a value in a message."""


def difference(value: Any, back: Any, path: str = "") -> str | None:
    """Where and how a value differs from what came back; None: nowhere.

    An int that comes back as the float of the same value is no difference: type checkers accept it for a float.

    Args:
        value: what was given.
        back: what came back.
        path: where both stand.

    Example:
        >>> difference({"a": [1, (2,)]}, {"a": [1, [2]]})
        'a tuple at a[1] would come back as a list'
    """
    kind, other = type(value), type(back)
    if kind is not other:
        if kind is int and other is float:
            return None if value == back else f"the number {value}{_at(path)} would become {back}"
        if not _same_model(kind, other):
            return f"a {kind.__qualname__}{_at(path)} would come back as a {other.__qualname__}"
    if value is back or kind is str or kind is int or kind is bytes:
        return None if value is back or value == back else _changed(value, back, path)
    if kind is float:
        same = value == back and math.copysign(1.0, value) == math.copysign(1.0, back)
        return None if same else _changed(value, back, path)
    if isinstance(value, Enum):
        return _changed(value, back, path)
    if isinstance(value, Mapping):
        return _of_mappings(value, back, path)
    if isinstance(value, list | tuple | deque):
        return _of_sequences(value, back, path)
    if isinstance(value, set | frozenset):
        return _of_sets(value, back, path)
    if isinstance(value, BaseModel):
        return _of_models(value, back, path)
    if dataclasses.is_dataclass(value):
        return _of_dataclasses(value, back, path)
    return None if _is_equal(value, back) else _changed(value, back, path)


def _is_equal(value: Any, back: Any) -> bool:
    if isinstance(value, datetime | time):
        # Python finds an hour that a zone has twice unequal to the same moment in any other zone.
        return value.utcoffset() == back.utcoffset() and bool(value.replace(tzinfo=None) == back.replace(tzinfo=None))
    if isinstance(value, Decimal):
        return bool(value.as_tuple() == back.as_tuple())
    return bool(value == back)


def _same_model(kind: type, other: type) -> bool:
    """Whether two classes are the same generic pydantic model with and without its arguments; pydantic finds these
    equal too.
    """
    if not (issubclass(kind, BaseModel) and issubclass(other, BaseModel)):
        return False
    return (kind.__pydantic_generic_metadata__["origin"] or kind) is (
        other.__pydantic_generic_metadata__["origin"] or other
    )


def _of_mappings(value: Mapping[Any, Any], back: Mapping[Any, Any], path: str) -> str | None:
    known = {key: key for key in back}
    for key, item in value.items():
        if key not in known:
            if len(back) < len(value):
                return f'"{key}"{_at(path)} would be dropped'
            return f"the key {_shown(key)}{_at(path)} would not come back"
        if found := difference(key, known[key]):
            return f"of the key {_shown(key)}{_at(path)}, {found}"
        if found := difference(item, back[key], f"{path}.{key}"):
            return found
    if len(back) > len(value):
        added = next(key for key in back if key not in value)
        return f'"{added}"{_at(path)} would be added'
    if isinstance(value, OrderedDict) and list(value) != list(back):
        return f"the order of the keys{_at(path)} would change"
    return None


def _of_sequences(value: Any, back: Any, path: str) -> str | None:
    if len(value) != len(back):
        return f"{len(value)} values{_at(path)} would come back as {len(back)}"
    if isinstance(value, deque) and value.maxlen != back.maxlen:
        return f"the maxlen of a deque{_at(path)} would be lost"
    for number, (item, other) in enumerate(zip(value, back, strict=True)):
        if type(item) is type(other) is str and item == other:
            continue
        if found := difference(item, other, f"{path}[{number}]"):
            return found
    return None


def _of_sets(value: Iterable[Any], back: Iterable[Any], path: str) -> str | None:
    known = {item: item for item in back}
    size = 0
    for item in value:
        size += 1
        if item not in known:
            return f"{_shown(item)} in a set{_at(path)} would not come back"
        if found := difference(item, known[item], f"{path}[...]"):
            return found
    return None if size == len(known) else f"{size} values of a set{_at(path)} would come back as {len(known)}"


def _of_models(value: BaseModel, back: BaseModel, path: str) -> str | None:
    if found := _of_fields(value, back, type(value).model_fields, path):
        return found
    for more in ("__pydantic_extra__", "__pydantic_private__"):
        mine, others = getattr(value, more, None), getattr(back, more, None)
        if (mine or others) and (found := difference(mine, others, path)):
            return found
    return None


def _of_dataclasses(value: Any, back: Any, path: str) -> str | None:
    fields = dataclasses.fields(value)
    for field in fields:
        if not field.init and difference(getattr(value, field.name, None), getattr(back, field.name, None)):
            where = f"{path}.{field.name}".lstrip(".")
            return f"{where} is no argument of {type(value).__qualname__} (init=False) and would be lost"
    return _of_fields(value, back, [field.name for field in fields], path)


def _of_fields(value: Any, back: Any, names: Iterable[str], path: str) -> str | None:
    for name in names:
        if found := difference(getattr(value, name, None), getattr(back, name, None), f"{path}.{name}"):
            return found
    return None


def _changed(value: Any, back: Any, path: str) -> str:
    return f"{_shown(value)}{_at(path)} would become {_shown(back)}"


def _at(path: str) -> str:
    return f" at {path.lstrip('.')}" if path else ""


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
