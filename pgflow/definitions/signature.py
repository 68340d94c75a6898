"""A function's parameters as a JSON object: arguments are stored by name and converted by their annotations.

So a new parameter with a default is a compatible change, and SQL can start a workflow by naming its arguments.
`*names: str` is a member `names` that holds a list. The keywords that `**rest: int` takes are members of their own; if
one has the name of a positional-only parameter, they are put into an object called `**rest`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import GenericAlias
from typing import Any

from pgflow.codec import OWN_TYPE, check_size, decode, encode
from pgflow.definitions.annotations import Annotations, annotations_of
from pgflow.definitions.functions import is_method
from pgflow.errors import SerializationError

_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY
_POSITIONAL_OR_KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD
_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function after its context."""

    fn: Callable[..., Any]
    signature: inspect.Signature
    simple: tuple[str, ...] | None
    """The names, if every parameter is positional or keyword and has no default: the fast path."""
    names: frozenset[str]
    """Names that can be given by keyword."""
    positional: tuple[str, ...]
    """Names that can be given by position, in order."""
    _context: str | None
    """The name of the context's own parameter, if it could be given by keyword."""
    _many: str | None
    """What takes further positional arguments."""
    _rest: str | None
    """What takes further keywords."""
    _annotations: Annotations
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
        hints = self._hints or self._resolved()
        rest = hints[""]
        members = [
            (f'"{name}":' if name.isidentifier() else f"{json.dumps(name, ensure_ascii=False)}:")
            + encode(value, hints.get(name, rest), what=f'argument "{name}" of {owner}', limit=limit)
            for name, value in given.items()
        ]
        text = "{" + ",".join(members) + "}"
        if len(text) * 4 > limit:
            check_size(text, limit, f"the input of {owner}")
        return text

    def encode_named(self, given: Mapping[str, Any], owner: str, limit: int) -> str:
        """Arguments that are all given by name, as they are stored, as a JSON object.

        Raises:
            TypeError: they do not fit the signature.
            SerializationError: one of them cannot be stored, or together they are too large.
        """
        args, kwargs = self._arranged(dict(given), owner)
        return self.encode(args, kwargs, owner, limit)

    def decode(self, text: str, owner: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from a JSON object.

        Raises:
            SerializationError: it is no object, names an unknown parameter, leaves one out, or does not convert.
        """
        if text == "{}" and self.simple == ():
            return (), {}
        stored = decode(text, what=f"the input of {owner}")
        if not isinstance(stored, dict):
            raise SerializationError(
                f"the input of {owner} is {text[:80]}; expected a JSON object of its arguments by name"
            )
        hints = self._hints or self._resolved()
        simple = self.simple
        if simple is not None and len(stored) == len(simple) and all([name in stored for name in simple]):
            return tuple([self._value(stored[name], hints[name], name, owner) for name in simple]), {}
        self._check_names(stored, owner)
        rest = hints[""]
        values = {name: self._value(value, hints.get(name, rest), name, owner) for name, value in stored.items()}
        try:
            return self._arranged(values, owner)
        except TypeError as error:
            raise SerializationError(f"the input of {owner} does not fit: {error}") from None

    def meaning_of(self, text: str, owner: str) -> dict[str, Any]:
        """The values of all parameters by name, with the defaults of those that a stored input leaves out.

        Raises:
            SerializationError: as `decode`.
        """
        args, kwargs = self.decode(text, owner)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _value(self, value: Any, hint: Any, name: str, owner: str) -> Any:
        # A scalar of exactly the annotated type needs no conversion.
        if hint is Any or (type(value) is hint and hint in OWN_TYPE):
            return value
        what = f'argument "{name}" of {owner}'
        try:
            text = json.dumps(value, ensure_ascii=False)
        except RecursionError as error:
            raise SerializationError(f"{what} cannot be read: {error}") from error
        return decode(text, hint, what=what)

    def _check_names(self, stored: dict[str, Any], owner: str) -> None:
        parameters = self.signature.parameters
        for name, parameter in parameters.items():
            if (
                name not in stored
                and parameter.default is parameter.empty
                and parameter.kind not in (_VAR_POSITIONAL, _VAR_KEYWORD)
            ):
                raise SerializationError(
                    f'the input of {owner} has no argument "{name}", which {self._shown()} requires. Give it, or give '
                    "the parameter a default."
                )
        unknown = next((name for name in stored if name not in parameters), None)
        if unknown is not None and self._rest is None:
            raise SerializationError(
                f'the input of {owner} names "{unknown}", which is no parameter of {self._shown()}'
            )

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any], owner: str) -> dict[str, Any]:
        """Arguments by the names under which they are stored."""
        parameters = self.signature.parameters
        apart = f"**{self._rest}"
        rest = kwargs
        if self._rest is not None and any(name == apart or _by_position(parameters.get(name)) for name in kwargs):
            # Bound without them: before Python 3.12 `bind` would take them for the parameters of those names.
            kwargs = {name: value for name, value in kwargs.items() if name in self.names}
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{owner}: {error}. Expected the arguments of {self._shown()}, after its context") from None
        given: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = parameters[name].kind
            if kind is _VAR_KEYWORD:
                given.update(value)
            elif kind is _VAR_POSITIONAL:
                given[name] = list(value)
            else:
                given[name] = value
        if kwargs is not rest:
            given[apart] = {name: value for name, value in rest.items() if name not in self.names}
        if self._context is not None and self._context in rest:
            raise TypeError(
                f'{owner}: "{self._context}" is the parameter for its context; give the argument another name'
            )
        return given

    def _arranged(self, given: dict[str, Any], owner: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The stored arguments in the form in which the function is called with them.

        Raises:
            TypeError: a member that should be a list or an object is none.
        """
        args: list[Any] = []
        many = given.pop(self._many, []) if self._many else []
        if not isinstance(many, list | tuple):
            raise TypeError(f'argument "{self._many}" of {owner}: expected a list, found {many!r:.80}')
        by_position = True
        for name, parameter in self.signature.parameters.items():
            if parameter.kind is _POSITIONAL_ONLY or (
                parameter.kind is _POSITIONAL_OR_KEYWORD and (many or by_position)
            ):
                if name in given:
                    args.append(given.pop(name))
                elif parameter.default is parameter.empty:
                    break  # the binding reports it
                elif parameter.kind is _POSITIONAL_ONLY or many:
                    args.append(parameter.default)
                else:
                    by_position = False  # its default is used: what follows is passed by name
        apart = given.pop(f"**{self._rest}", {}) if self._rest else {}
        if not isinstance(apart, Mapping):
            raise TypeError(f'argument "**{self._rest}" of {owner}: expected an object, found {apart!r:.80}')
        return (*args, *many), {**given, **apart}

    @property
    def takes_any_name(self) -> bool:
        """Whether there may be arguments of other names."""
        return self._rest is not None

    def described(self) -> list[tuple[str, Any, bool]]:
        """The arguments by the names under which they are stored: their annotation (Any where it cannot be had), and
        whether they must be given.
        """
        try:
            hints = self._hints or self._resolved()
        except SerializationError:
            hints = {}
        return [
            (
                name,
                hints.get(name, Any),
                parameter.default is parameter.empty and parameter.kind is not _VAR_POSITIONAL,
            )
            for name, parameter in self.signature.parameters.items()
            if parameter.kind is not _VAR_KEYWORD
        ]

    def _shown(self) -> str:
        return f"{self.fn.__name__}{self.signature}"

    def _resolved(self) -> dict[str, Any]:
        """Annotations by the names under which arguments are stored, and under "" that of other names."""
        found = self._annotations()
        hints = {name: found[name] for name in self.signature.parameters}
        rest = Any
        if self._many is not None and hints[self._many] is not Any:
            hints[self._many] = GenericAlias(list, (hints[self._many],))
        if self._rest is not None:
            rest = hints.pop(self._rest)
            hints[f"**{self._rest}"] = GenericAlias(dict, (str, rest))
        self._hints.update(hints, **{"": rest})
        return self._hints


@dataclass(frozen=True, slots=True)
class ReturnType:
    """A function's return annotation, resolved when it is first needed."""

    annotations: Annotations
    found: list[Any] = field(default_factory=list)
    """The annotation, once it has been resolved."""

    def __call__(self) -> Any:
        """The annotation; Any when there is none."""
        if not self.found:
            self.found.append(self.annotations()["return"])
        return self.found[0]


def parameters_of(fn: Callable[..., Any]) -> tuple[Parameters, ReturnType]:
    """The parameters of `fn` after that for the context (and after the `self` of a method), and what it returns. To be
    called where it is decorated.

    Example:
        >>> def add(ctx, a: int, b: int = 1) -> int: ...
        >>> parameters_of(add)[0].encode((1,), {"b": 2}, "add", 100)
        '{"a":1,"b":2}'
    """
    signature = inspect.signature(fn)
    method = is_method(fn)
    context, *rest = list(signature.parameters.values())[method:]
    simple = all(
        parameter.kind is _POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty for parameter in rest
    )
    annotations = annotations_of(fn, 1 + method)
    parameters = Parameters(
        fn,
        signature.replace(parameters=rest),
        tuple(parameter.name for parameter in rest) if simple else None,
        frozenset(
            parameter.name
            for parameter in rest
            if parameter.kind in (_POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        ),
        tuple(parameter.name for parameter in rest if parameter.kind in (_POSITIONAL_ONLY, _POSITIONAL_OR_KEYWORD)),
        context.name if context.kind is _POSITIONAL_OR_KEYWORD else None,
        _of_kind(rest, _VAR_POSITIONAL),
        _of_kind(rest, _VAR_KEYWORD),
        annotations,
    )
    return parameters, ReturnType(annotations)


def _by_position(parameter: inspect.Parameter | None) -> bool:
    """Whether a parameter is positional-only, so that a keyword of its name is something else."""
    return parameter is not None and parameter.kind in (_POSITIONAL_ONLY, _VAR_POSITIONAL)


def _of_kind(parameters: Iterable[inspect.Parameter], kind: Any) -> str | None:
    return next((parameter.name for parameter in parameters if parameter.kind is kind), None)
