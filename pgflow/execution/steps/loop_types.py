"""The types by which a loop's states and its output are converted: what its body's annotations say, resolved like a
workflow's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from typing_extensions import TypeAliasType

from pgflow.definitions.annotations import annotations_of
from pgflow.execution.steps.loop import Break

_AWAITED = (Coroutine, Awaitable)


def loop_types(body: Callable[..., Any]) -> tuple[Any, Any]:
    """The types of a loop's state and of its output; Any where nothing is said.

    Args:
        body: what runs a turn: a function, a partial one, a method, or an object that can be called.

    Raises:
        SerializationError: an annotation names what cannot be found.

    Example:
        state_type, value_type = loop_types(turn)
    """
    try:
        parameters = list(inspect.signature(body).parameters)
    except (TypeError, ValueError):
        return Any, Any  # written in C: it says nothing of its parameters
    if not (inspect.isroutine(body) or isinstance(body, functools.partial)):
        body = cast("Any", body).__call__  # an object's annotations are those of its class's code
    found = annotations_of(body)()
    state = found[parameters[1]] if len(parameters) > 1 else Any
    values = [
        value for option in _options(found["return"]) if get_origin(option) is Break for value in get_args(option)
    ]
    return state, Union[tuple(values)] if values else Any  # noqa: UP007 — as many as there are


def _options(annotation: Any) -> Iterator[Any]:
    """What a return annotation consists of."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, TypeAliasType):
        yield from _options(annotation.__value__)
    elif origin is Annotated:
        yield from _options(parts[0])
    elif origin in (Union, UnionType):
        for part in parts:
            yield from _options(part)
    elif origin in _AWAITED and parts:
        yield from _options(parts[-1])
    else:
        yield annotation
