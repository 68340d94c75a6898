"""The annotations of a function, resolved where they were written.

Annotations may be texts (PEP 563), and a decorator of another module may stand in between. So they are looked up in the
module of the innermost function, in its closure, and among the names around it where it was decorated, so that they may
name classes that are local to a function.
"""

from __future__ import annotations

import inspect
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pgflow.definitions.functions import layers, place
from pgflow.errors import SerializationError

_EMPTY = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations of a function without those of its first parameters: the context, which is often imported for
    type checkers only, and the `self` of a method.

    They are resolved when they are first needed: they may name classes that are defined further down.

    Args:
        fn: the function.
        around: the names around it where it was decorated.
        first: how many parameters are left out.
    """

    fn: Callable[..., Any]
    around: Mapping[str, Any]
    first: int = 1
    _found: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Mapping[str, Any]:
        """Annotations by parameter, that of the result as "return"; Any where there is none.

        Raises:
            SerializationError: one of them names what cannot be found.
        """
        if not self._found:
            signature = inspect.signature(self.fn)
            written = {
                parameter.name: parameter.annotation for parameter in list(signature.parameters.values())[self.first :]
            }
            found = {name: self._resolved(annotation) for name, annotation in written.items()}
            self._found.update(found, **{"return": self._resolved(signature.return_annotation)})
        return self._found

    def _resolved(self, annotation: Any) -> Any:
        if annotation is _EMPTY:
            return Any

        def holder() -> None: ...

        holder.__annotations__ = {"it": annotation}
        missing: NameError | None = None
        for names, own in self._places():
            try:
                return typing.get_type_hints(holder, names, own, include_extras=True)["it"]
            except NameError as error:
                missing = missing or error
        raise SerializationError(
            f"the annotations of {place(self.fn)} cannot be resolved: {missing}. Values are converted by their "
            "annotations: import or define what they name at the module's top level, not under `if TYPE_CHECKING`."
        ) from missing

    def _places(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Where names are looked up, the innermost function first: the names of a module, and those that take
        precedence over them.
        """
        for layer in reversed(list(layers(self.fn))):
            function = getattr(layer, "__func__", layer)
            names = getattr(function, "__globals__", None)
            if isinstance(names, dict):
                yield names, {**self.around, **_enclosed(function)}
        module = sys.modules.get(getattr(self.fn, "__module__", None) or "")
        if module is not None:
            yield vars(module), dict(self.around)


def annotations_of(fn: Callable[..., Any], first: int = 1) -> Annotations:
    """The annotations of a function; call it where the function is decorated, so that names around it can be found.

    Args:
        first: how many parameters are left out.

    Example:
        annotations_of(charge)()["order"]
    """
    return Annotations(fn, _around(fn), first)


def _enclosed(function: Any) -> dict[str, Any]:
    """The closure of a function, and its own type parameters."""
    found = {parameter.__name__: parameter for parameter in getattr(function, "__type_params__", ())}
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue  # not assigned yet
    return found


def _around(fn: Any) -> dict[str, Any]:
    """The names that texts among the annotations use from the body, of a function or a class, in which the function is
    being decorated.
    """
    if "." not in getattr(fn, "__qualname__", ""):
        return {}
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pgflow."):
        frame = frame.f_back
    if frame.f_locals is frame.f_globals:
        return {}
    signature = inspect.signature(fn)
    written = [*(parameter.annotation for parameter in signature.parameters.values()), signature.return_annotation]
    texts = [
        text for text in (one if isinstance(one, str) else repr(one) for one in written if one is not _EMPTY) if text
    ]
    names = {name for text in texts for name in re.findall(r"\w+", text)}
    return {name: frame.f_locals[name] for name in names if name in frame.f_locals}
