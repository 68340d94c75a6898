"""What is known of a decorated function: where it stands, whether it is asynchronous, and whether it can be a
workflow or an activity at all.

A decorator beneath may hide it. What `functools.wraps` leaves behind (`__wrapped__`), and what a `functools.partial`
holds, is looked through.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, TypeGuard

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_CONTEXTS = {"WorkflowContext": "workflow", "ActivityContext": "activity"}


class StepContext:
    """What a workflow or an activity takes as its first parameter."""

    __slots__ = ()
    _context_of: ClassVar[str]
    """workflow or activity."""


class AttemptContext(StepContext):
    """What an activity takes: all that its descriptor has to know of `ActivityContext`."""

    __slots__ = ()
    _context_of = "activity"


def layers(fn: Any) -> Iterator[Any]:
    """A callable, and what it wraps, from the outside to the inside."""
    seen: set[int] = set()
    while fn is not None and id(fn) not in seen:
        seen.add(id(fn))
        yield fn
        fn = fn.func if isinstance(fn, functools.partial) else getattr(fn, "__wrapped__", None)


def is_async(fn: Any) -> bool:
    """Whether the result of a call has to be awaited: an `async def`, even behind decorators that are plain functions.

    Example:
        >>> is_async(asyncio.sleep)
        True
    """
    return any(_is_coroutine_function(layer) for layer in layers(fn))


def generates(fn: Any) -> str | None:
    """What sort of generator a call would give, if it gives one."""
    for layer in layers(fn):
        if _is_coroutine_function(layer):
            return None  # it does something with the generator beneath
        if inspect.isasyncgenfunction(layer):
            return "an async generator"
        if inspect.isgeneratorfunction(layer):
            return "a generator"
    return None


def check_function(fn: Any, sort: str, name: str | None) -> None:
    """Refuse what cannot be a workflow or an activity.

    Args:
        fn: what is decorated.
        sort: workflow or activity.
        name: the name that the decorator was given.

    Raises:
        TypeError: it cannot be one; the message says what to write instead.
    """
    where = f"@pgflow.{sort} on {place(fn)}"
    wanted = "an `async def`" if sort == "workflow" else "a function"
    if not inspect.isfunction(fn) and not inspect.ismethod(fn):
        raise TypeError(f"{where}: expected {wanted}, found {sort_of(fn)}{_instead_of(fn, sort)}")
    if fn.__name__ == "<lambda>" and name is None:
        raise TypeError(
            f"{where}: a lambda has no name to be recorded by; write a `def`, or give a name: "
            f'@pgflow.{sort}(name="...")'
        )
    generator = generates(fn)
    if generator is not None:
        raise TypeError(
            f"{where}: expected {wanted} that returns one value, found {generator}. Return a list, or call one "
            "activity for each part."
        )
    if sort == "workflow" and not is_async(fn):
        raise TypeError(
            f"{where}: expected an `async def`, found {sort_of(fn)}. A workflow is an `async def` whose first "
            "parameter is its context; put blocking work in activities."
        )
    _check_context(fn, sort, where)


def is_method(fn: Any) -> bool:
    """Whether a function is a method: it stands in the body of a class, and its first parameter is `self`.

    Example:
        >>> is_method(asyncio.Queue.put), is_method(asyncio.sleep)
        (True, False)
    """
    body = getattr(fn, "__qualname__", "").rpartition(".")[0]
    if not body or body.endswith("<locals>") or inspect.ismethod(fn):
        return False
    first = next(iter(inspect.signature(fn).parameters.values()), None)
    return first is not None and first.name == "self" and not _context_of(first, fn)


def place(found: Any) -> str:
    """Where something stands: its module and qualified name."""
    name = getattr(found, "__qualname__", None)
    return f"{found.__module__}.{name}" if name else repr(found)


def sort_of(found: Any) -> str:
    """What sort of thing it is, for messages."""
    if isinstance(found, type):
        return "a class"
    if inspect.isasyncgenfunction(found):
        return "an async generator"
    if inspect.isfunction(found):
        return "a plain `def`"
    return f"a {type(found).__name__}"


def is_name(name: Any) -> TypeGuard[str]:
    """Whether something can be a name in the database: 1 to 200 printable characters.

    Example:
        >>> is_name("orders"), is_name(""), is_name("a\\nb")
        (True, False, False)
    """
    return isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable()


def checked_name(name: Any, sort: str) -> str:
    """A name by which something is known in the database.

    Raises:
        ValueError: it cannot be one.
    """
    if not is_name(name):
        raise ValueError(f"the name of a {sort} is {name!r}; expected 1 to 200 printable characters")
    return name


def _is_coroutine_function(fn: Any) -> bool:
    if inspect.iscoroutinefunction(fn):
        return True
    if sys.version_info < (3, 12) and asyncio.iscoroutinefunction(fn):  # marked as one
        return True
    if inspect.isroutine(fn) or isinstance(fn, type | functools.partial):
        return False
    return inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004 — of a callable object


def _instead_of(found: Any, sort: str) -> str:
    if isinstance(found, staticmethod | classmethod):
        return (
            f". Put @{type(found).__name__} above @pgflow.{sort}."
            if isinstance(found, staticmethod)
            else ". A class method has no context first."
        )
    if isinstance(found, type):
        return f". Decorate a function whose first parameter is its context, and pass it what makes a {found.__name__}."
    if isinstance(found, functools.partial) or callable(found):
        return ". Write a `def` that calls it, so that it has a name and parameters to be recorded by."
    return ""


def _check_context(fn: Any, sort: str, where: str) -> None:
    """Refuse a function whose first parameter, as far as it tells, is not for the context."""
    try:
        signature = inspect.signature(fn)
    except ValueError as error:  # decorators that wrap each other
        raise TypeError(f"{where}: its parameters cannot be found ({error})") from None
    parameters = list(signature.parameters.values())
    if sort == "activity" and is_method(fn):
        del parameters[0]
    shown = f"{fn.__name__}{signature}"
    expected = f"{where}: expected a first parameter for the context (`ctx: pgflow.{sort.title()}Context`)"
    if not parameters or parameters[0].kind not in _POSITIONAL:
        hidden = (
            parameters and not hasattr(fn, "__wrapped__") and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
        )
        advice = ". A decorator beneath hides its parameters: let it use functools.wraps." if hidden else ""
        raise TypeError(f"{expected}, found {shown}{advice}")
    first = parameters[0]
    if first.name in ("self", "cls") and not _context_of(first, fn):
        raise TypeError(
            f"{expected}, found the method {shown}. There is no object when it is called by name, perhaps in another "
            f"process: write a function, or @staticmethod above @pgflow.{sort}. Activities may be methods (`self` "
            "first, then the context), of objects that are given to Worker(objects=[...])."
        )
    found = _context_of(first, fn)
    second = len(parameters) > 1 and _context_of(parameters[1], fn) == sort
    if found == sort or (found is None and not second):
        return
    if found in _CONTEXTS.values():
        raise TypeError(
            f"{expected}, found that of {'an activity' if found == 'activity' else 'a workflow'}: {shown}. Is it "
            f"meant to be one? Then decorate it with @pgflow.{found}."
        )
    raise TypeError(f"{expected}, found {shown}. {'Put the context first.' if second else 'Add it in front.'}")


def _context_of(parameter: inspect.Parameter, fn: Any) -> str | None:
    """Whose context an annotation names: workflow or activity; "": another class; None: there is no telling."""
    annotation: Any = parameter.annotation
    if isinstance(annotation, str):
        known = _CONTEXTS.get(annotation.rpartition(".")[2])
        if known is not None:
            return known
        innermost = list(layers(fn))[-1]
        try:  # as far as it is defined yet
            annotation = eval(annotation, getattr(innermost, "__globals__", {}))
        except Exception:
            return None
    if (
        annotation is inspect.Parameter.empty
        or not isinstance(annotation, type)
        or typing.get_origin(annotation) is not None
    ):
        return None
    if issubclass(annotation, StepContext):
        return getattr(annotation, "_context_of", None)
    if annotation in (object, Any) or getattr(annotation, "_is_protocol", False):
        return None
    return ""
