"""What workflows and activities have in common, and the errors for other things given in their place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import CoroutineType
from typing import Any, ClassVar

from pgflow.definitions.functions import check_function, checked_name, layers, place
from pgflow.errors import SerializationError

_TOLD = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__type_params__")


class Decorated:
    """A function that has become a workflow or an activity."""

    sort: ClassVar[str]
    fn: Callable[..., Any]
    name: str

    def __post_init__(self) -> None:
        # As functools.update_wrapper does, which cannot write to a frozen class.
        fn = self.fn
        self.__dict__.update(getattr(fn, "__dict__", {}), __wrapped__=fn)
        self.__dict__.update({name: getattr(fn, name) for name in _TOLD if hasattr(fn, name)})

    @property
    def where(self) -> str:
        """Where the function stands: its module and qualified name."""
        return place(self.fn)


def not_a_workflow(found: Any, where: str) -> TypeError:
    """The error for what is given in place of a workflow.

    Args:
        where: who asks for one.
    """
    if isinstance(found, Decorated) and found.sort == "activity":
        advice = f'"{found.name}" is an activity, which a workflow runs: `await ctx.activity({found.fn.__name__}, ...)`'
    else:
        advice = _undecorated(found, "workflow")
    return TypeError(
        f"{where}: expected workflows (functions decorated with @pgflow.workflow), found {found!r:.200}; {advice}"
    )


def not_an_activity(found: Any, where: str) -> TypeError:
    """The error for what is given in place of an activity.

    Args:
        where: who asks for one.
    """
    bound = getattr(found, "activity", None)
    if isinstance(bound, Decorated) and hasattr(found, "__self__"):
        advice = (
            f"it is the activity of one object, which another process does not have: name it by its class, `await "
            f"ctx.activity({type(found.__self__).__name__}.{bound.fn.__name__}, ...)`, and give the object to "
            "Worker(objects=[...])"
        )
    elif isinstance(found, Decorated) and found.sort == "workflow":
        called = found.fn.__name__
        advice = (
            f'"{found.name}" is a workflow: run it as a branch, `await ctx.inline({called}, ...)`, or as a child, '
            f"`await ctx.dispatch({called}, ...)`"
        )
    else:
        advice = _undecorated(found, "activity")
    return TypeError(f"{where} takes a function decorated with @pgflow.activity, not {found!r:.200}; {advice}")


def _undecorated(found: Any, sort: str) -> str:
    beneath = next((layer for layer in layers(found) if isinstance(layer, Decorated)), None)
    if beneath is not None and beneath.sort == sort:
        return f"@pgflow.{sort} is below another decorator, which would be left out: put it on top"
    if inspect.iscoroutine(found):
        return "it has been called already: give the function, and its arguments after it"
    return f"put @pgflow.{sort} on the function"


def name_for(found: Any, sort: str, name: str | None) -> str:
    """The name under which something is registered.

    Raises:
        TypeError: it cannot be a workflow or an activity, or is one already.
        ValueError: the name cannot be one.
    """
    if name is not None:
        checked_name(name, sort)
    beneath = next((layer for layer in layers(found) if isinstance(layer, Decorated)), None)
    if beneath is not None:
        raise TypeError(
            f'@pgflow.{sort} on {place(found)}: it is decorated already, as the {beneath.sort} "{beneath.name}". '
            "Decorate it once, on top of its other decorators; `.options(name=...)` gives it another name."
        )
    check_function(found, sort, name)
    return checked_name(found.__name__ if name is None else name, sort)


def unawaited(value: Any, owner: str, advice: str) -> SerializationError | None:
    """The error for a coroutine that was returned in place of a value; None for other values."""
    if type(value) is not CoroutineType:  # an instance may claim any class
        return None
    value.close()
    return SerializationError(f"{owner} returned a coroutine, which nobody has awaited. {advice}")
