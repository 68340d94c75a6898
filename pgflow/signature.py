"""A function's parameters as a JSON object: arguments are stored by name and converted by their annotations.

So a new parameter with a default is a compatible change, and SQL can start a workflow by naming its arguments.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pgflow.codec import OWN_TYPE, decode, encode, loads
from pgflow.errors import SerializationError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function after its context.

    Annotations are resolved when they are first needed: they may name classes that are defined further down.
    """

    fn: Callable[..., Any]
    signature: inspect.Signature
    simple: tuple[str, ...] | None
    """The names, when every parameter is positional or keyword and has no default: the fast way."""
    _hints: dict[str, Any] = field(default_factory=dict)

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any], owner: str, limit: int) -> str:
        """Arguments as a JSON object.

        Raises:
            TypeError: they do not fit the signature.
            SerializationError: one of them cannot be stored, or together they are too large.
        """
        simple = self.simple
        if not args and not kwargs and simple == ():
            return "{}"
        if simple is not None and not kwargs and len(args) == len(simple):
            given = dict(zip(simple, args, strict=True))
        else:
            given = self._bound(args, kwargs, owner)
        if not given:
            return "{}"
        hints = self._resolved()
        members = [
            (f'"{name}":' if name.isidentifier() else f"{json.dumps(name, ensure_ascii=False)}:")
            + encode(value, hints.get(name, Any), what=f'argument "{name}" of {owner}', limit=limit)
            for name, value in given.items()
        ]
        text = "{" + ",".join(members) + "}"
        if len(text) * 3 > limit and len(text.encode()) > limit:
            raise SerializationError(
                f"the arguments of {owner} are {len(text.encode()):,} bytes of JSON; expected at most {limit:,}. Store "
                "large data elsewhere and pass a reference to it, or raise `payload_limit`."
            )
        return text

    def decode(self, text: str, owner: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from a JSON object.

        Raises:
            SerializationError: it is no object, names an unknown parameter, leaves one out, or does not convert.
        """
        if text == "{}" and self.simple == ():
            return (), {}
        stored = loads(text)
        if not isinstance(stored, dict):
            raise SerializationError(
                f"the input of {owner} is {text[:80]}; expected a JSON object of its arguments by name"
            )
        hints = self._resolved()
        simple = self.simple
        if simple is not None and len(stored) == len(simple) and all([name in stored for name in simple]):
            return tuple([self._value(stored[name], hints.get(name, Any), name, owner) for name in simple]), {}
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_keyword = False
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                for extra in list(stored):
                    kwargs[extra] = self._value(stored.pop(extra), hints.get(name, Any), extra, owner)
                continue
            if name not in stored:
                if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                    continue
                if parameter.default is inspect.Parameter.empty:
                    raise SerializationError(
                        f'the input of {owner} has no argument "{name}", which {self._shown()} requires. Give it, or give '
                        "the parameter a default."
                    )
                by_keyword = True  # a default stands for it: what follows is passed by name
                if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                    args.append(parameter.default)
                    by_keyword = False
                continue
            value = stored.pop(name)
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(self._value(item, hints.get(name, Any), name, owner) for item in value)
            elif parameter.kind in _POSITIONAL and not by_keyword:
                args.append(self._value(value, hints.get(name, Any), name, owner))
            else:
                kwargs[name] = self._value(value, hints.get(name, Any), name, owner)
        if stored:
            raise SerializationError(
                f'the input of {owner} names "{next(iter(stored))}", which is no parameter of {self._shown()}'
            )
        return tuple(args), kwargs

    def _value(self, value: Any, hint: Any, name: str, owner: str) -> Any:
        # A scalar of exactly the type that is asked for needs no conversion.
        if hint is Any or (type(value) is hint and hint in OWN_TYPE):
            return value
        text = json.dumps(value, ensure_ascii=False)
        return decode(text, hint, what=f'argument "{name}" of {owner}')

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any], owner: str) -> dict[str, Any]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{owner}: {error}. Expected the arguments of {self._shown()}") from None
        given: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                given.update(value)
            elif kind is inspect.Parameter.VAR_POSITIONAL:
                given[name] = list(value)
            else:
                given[name] = value
        return given

    def _shown(self) -> str:
        return f"{self.fn.__name__}{self.signature}"

    def _resolved(self) -> dict[str, Any]:
        if not self._hints:
            self._hints.update(_hints_of(self.fn))
            self._hints.setdefault("", Any)  # resolved, even if nothing is annotated
        return self._hints


@dataclass(frozen=True, slots=True)
class Returned:
    """A function's return annotation, resolved when it is first needed."""

    fn: Callable[..., Any]
    found: list[Any] = field(default_factory=list)
    """The annotation, once it has been resolved."""

    def __call__(self) -> Any:
        """The annotation; Any when there is none."""
        if not self.found:
            self.found.append(_hints_of(self.fn).get("return", Any))
        return self.found[0]


def parameters_of(fn: Callable[..., Any], where: str) -> Parameters:
    """The parameters of `fn` after the first, which takes the context.

    Raises:
        TypeError: there is no parameter for the context.
    """
    signature = inspect.signature(fn)
    parameters = list(signature.parameters.values())
    if not parameters or parameters[0].kind not in _POSITIONAL:
        raise TypeError(f"{where}: expected a first parameter for the context, found {fn.__name__}{signature}")
    rest = parameters[1:]
    simple = all(
        parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and parameter.default is inspect.Parameter.empty
        for parameter in rest
    )
    return Parameters(
        fn,
        signature.replace(parameters=rest),
        tuple(parameter.name for parameter in rest) if simple else None,
    )


def returned_by(fn: Callable[..., Any]) -> Returned:
    """The return annotation of `fn`, to be resolved later."""
    return Returned(fn)


def _hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of `fn` but for its context's, which is often imported for type checkers only."""
    context = next(iter(inspect.signature(fn).parameters), None)

    def holder() -> None: ...

    holder.__annotations__ = {
        name: hint for name, hint in inspect.get_annotations(fn).items() if name != context
    }
    try:
        # A function defined inside another may name the other's classes, which only its closure knows.
        nonlocals = dict(inspect.getclosurevars(fn).nonlocals)
        return typing.get_type_hints(holder, fn.__globals__, nonlocals, include_extras=True)
    except NameError as error:
        raise SerializationError(
            f"the annotations of {fn.__module__}.{fn.__qualname__} cannot be resolved: {error}. Values are converted by "
            "their annotations: import or define what they name at the module's top level."
        ) from error
