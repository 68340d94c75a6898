"""What users register: `@workflow`, `@activity`, `@signal`, `@message`. Frozen descriptors and the registry of a worker.

A descriptor is still callable as the function it was made of, so that plain tests can call it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from pydantic import BaseModel

from pgflow.codec import PAYLOAD_LIMIT, decode, encode
from pgflow.retry import RetryPolicy, seconds
from pgflow.signature import Parameters, Returned, parameters_of, returned_by

if TYPE_CHECKING:
    from pgflow.execution.activity_context import ActivityContext
    from pgflow.execution.context import WorkflowContext

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")
C = TypeVar("C", bound=type)

DEFAULT_TIMEOUT = 30.0
"""Seconds that an attempt of an activity may take unless it says otherwise."""

_UNCHANGED: Any = object()


@dataclass(frozen=True, slots=True, eq=False)
class Workflow(Generic[P, R]):
    """A registered `async def`: made by `@pgflow.workflow`.

    Attributes:
        fn: the function.
        name: what it is called in the database.
    """

    fn: Callable[..., Coroutine[Any, Any, R]]
    name: str
    _parameters: Parameters = field(repr=False)
    _returned: Returned = field(repr=False)

    def __call__(self, ctx: WorkflowContext, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """The plain function, for tests; in a workflow, use `ctx.inline` or `ctx.dispatch`."""
        return self.fn(ctx, *args, **kwargs)

    @property
    def where(self) -> str:
        """Where the function stands: its module and qualified name."""
        return _place(self.fn)

    def options(self, *, name: str | None = None) -> Workflow[P, R]:
        """This workflow under another name.

        Example:
            nightly = report.options(name="nightly_report")
        """
        return self if name is None else dataclasses.replace(self, name=_checked_name(name, "workflow"))

    def encode_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int = PAYLOAD_LIMIT
    ) -> str:
        """The input as JSON: an object of the arguments by name.

        Raises:
            TypeError: the arguments do not fit the function's signature.
            SerializationError: an argument cannot be stored.
        """
        return self._parameters.encode(args, kwargs, f'workflow "{self.name}"', limit)

    def decode_arguments(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from a stored input.

        Raises:
            SerializationError: the input does not fit the function's signature or annotations.
        """
        return self._parameters.decode(text, f'workflow "{self.name}"')

    def encode_result(self, value: Any, limit: int = PAYLOAD_LIMIT) -> str:
        """The output as JSON.

        Raises:
            SerializationError: the value cannot be stored, or does not fit the annotation.
        """
        return encode(value, self._returned(), what=f'output of workflow "{self.name}"', limit=limit)

    def decode_result(self, text: str) -> Any:
        """The output from its stored form."""
        return decode(text, self._returned(), what=f'output of workflow "{self.name}"')


@dataclass(frozen=True, slots=True, eq=False)
class Activity(Generic[P, R]):
    """A unit of work with side effects: made by `@pgflow.activity`.

    Attributes:
        fn: the function.
        name: what it is called in history.
        timeout: seconds that one attempt may take; None: for ever.
        retry: when it is tried again.
        transactional: its result commits in the transaction of its own database writes.
        is_async: an `async def`; a plain function runs in a thread.
    """

    fn: Callable[..., Any]
    name: str
    timeout: float | None
    retry: RetryPolicy
    transactional: bool
    is_async: bool
    _parameters: Parameters = field(repr=False)
    _returned: Returned = field(repr=False)
    _label: str = field(init=False, repr=False)
    _result: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_label", f'activity "{self.name}"')
        object.__setattr__(self, "_result", f"result of {self._label}")

    def __call__(self, ctx: ActivityContext, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The plain function, for tests; in a workflow, use `ctx.activity`."""
        return self.fn(ctx, *args, **kwargs)

    @property
    def where(self) -> str:
        """Where the function stands: its module and qualified name."""
        return _place(self.fn)

    def options(
        self,
        *,
        timeout: timedelta | float | None = _UNCHANGED,
        retry: RetryPolicy | None = None,
        name: str | None = None,
    ) -> Activity[P, R]:
        """This activity with other options at one call.

        Parameters:
            timeout: a timedelta or seconds; None: for ever.
            retry: another policy.
            name: another name in history.

        Raises:
            ValueError: a value out of its range.

        Example:
            await ctx.activity(charge.options(timeout=5), order)
        """
        return dataclasses.replace(
            self,
            timeout=self.timeout if timeout is _UNCHANGED else _timeout(timeout),
            retry=self.retry if retry is None else _checked_retry(retry),
            name=self.name if name is None else _checked_name(name, "activity"),
        )

    def encode_arguments(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int = PAYLOAD_LIMIT
    ) -> str:
        """The input as JSON: an object of the arguments by name.

        Raises:
            TypeError: the arguments do not fit the function's signature.
            SerializationError: an argument cannot be stored.
        """
        return self._parameters.encode(args, kwargs, self._label, limit)

    def decode_arguments(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from a stored input."""
        return self._parameters.decode(text, self._label)

    def encode_result(self, value: Any, limit: int = PAYLOAD_LIMIT) -> str:
        """The result as JSON.

        Raises:
            SerializationError: the value cannot be stored, or does not fit the annotation.
        """
        returned = self._returned
        annotation = returned.found[0] if returned.found else returned()
        return encode(value, annotation, what=self._result, limit=limit)

    def decode_result(self, text: str) -> Any:
        """The result from its stored form."""
        returned = self._returned
        annotation = returned.found[0] if returned.found else returned()
        return decode(text, annotation, what=self._result)


WorkflowFunction = Callable[Concatenate["WorkflowContext", P], Coroutine[Any, Any, T]]


@overload
def workflow(fn: WorkflowFunction[P, T], /) -> Workflow[P, T]: ...
@overload
def workflow(*, name: str | None = None) -> Callable[[WorkflowFunction[P, T]], Workflow[P, T]]: ...
def workflow(fn: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Register an `async def` whose first parameter is its `WorkflowContext` as a workflow.

    Parameters:
        name: what it is called in the database; the function's name if not given.

    Raises:
        TypeError: it is not an `async def`, or has no parameter for the context.

    Example:
        @pgflow.workflow
        async def checkout(ctx: pgflow.WorkflowContext, order: Order) -> Receipt: ...
    """

    def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"@pgflow.workflow on {_place(function)}: expected an `async def`, found {_sort(function)}. A workflow is "
                "an `async def` whose first parameter is its context; put blocking work in activities."
            )
        return Workflow(
            function,
            _checked_name(function.__name__ if name is None else name, "workflow"),
            parameters_of(function, f"@pgflow.workflow on {_place(function)}"),
            returned_by(function),
        )

    return decorate if fn is None else decorate(fn)


@overload
def activity(
    fn: Callable[Concatenate[ActivityContext, P], Awaitable[T]], /
) -> Activity[P, T]: ...
@overload
def activity(fn: Callable[Concatenate[ActivityContext, P], T], /) -> Activity[P, T]: ...
@overload
def activity(
    *,
    name: str | None = None,
    timeout: timedelta | float | None = DEFAULT_TIMEOUT,
    retry: RetryPolicy | None = None,
    transactional: bool = False,
) -> _ActivityDecorator: ...
def activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: timedelta | float | None = DEFAULT_TIMEOUT,
    retry: RetryPolicy | None = None,
    transactional: bool = False,
) -> Any:
    """Register a function whose first parameter is its `ActivityContext` as an activity.

    Parameters:
        name: what it is called in history; the function's name if not given.
        timeout: how long one attempt may take (a timedelta or seconds); None: for ever.
        retry: when it is tried again; five attempts with growing delays if not given.
        transactional: its result commits in the transaction of its own database writes.

    Raises:
        TypeError: no parameter for the context, or not a function.
        ValueError: an option out of its range.

    Example:
        @pgflow.activity(timeout=timedelta(seconds=30))
        async def charge(ctx: pgflow.ActivityContext, order: Order) -> Receipt: ...
    """
    limit = _timeout(timeout)
    policy = RetryPolicy() if retry is None else _checked_retry(retry)

    def decorate(function: Callable[..., Any]) -> Activity[Any, Any]:
        if not inspect.isfunction(function) and not inspect.ismethod(function):
            raise TypeError(
                f"@pgflow.activity on {_place(function)}: expected a function, found {_sort(function)}"
            )
        return Activity(
            function,
            _checked_name(function.__name__ if name is None else name, "activity"),
            limit,
            policy,
            transactional,
            inspect.iscoroutinefunction(function),
            parameters_of(function, f"@pgflow.activity on {_place(function)}"),
            returned_by(function),
        )

    return decorate if fn is None else decorate(fn)


class _ActivityDecorator:
    """The type of `@activity(...)` with options: an `async def` gives its result's type, a plain `def` its own."""

    @overload
    def __call__(
        self, fn: Callable[Concatenate[ActivityContext, P], Awaitable[T]], /
    ) -> Activity[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[ActivityContext, P], T], /) -> Activity[P, T]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Activity[Any, Any]:
        raise NotImplementedError  # pragma: no cover — stands for a plain closure


@overload
def signal(cls: C, /) -> C: ...
@overload
def signal(*, name: str | None = None) -> Callable[[C], C]: ...
def signal(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Declare a dataclass or pydantic model as a signal.

    Parameters:
        name: what it is called in the database; the class name in snake case if not given.

    Raises:
        TypeError: it is neither a dataclass nor a pydantic model.

    Example:
        @pgflow.signal
        @dataclass
        class Approved:
            by: str
    """
    return _packet(cls, name, "signal")


@overload
def message(cls: C, /) -> C: ...
@overload
def message(*, name: str | None = None) -> Callable[[C], C]: ...
def message(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Declare a dataclass or pydantic model as a message.

    Parameters:
        name: what it is called on the wire; the class name in snake case if not given.

    Raises:
        TypeError: it is neither a dataclass nor a pydantic model.

    Example:
        @pgflow.message
        @dataclass
        class Progress:
            done: int
    """
    return _packet(cls, name, "message")


def signal_name(kind: Any, where: str) -> str:
    """The name of a signal's class.

    Parameters:
        kind: a class declared by `@signal`.
        where: who asks, for messages.

    Raises:
        TypeError: it is none.
    """
    return _packet_name(kind, "signal", where)


def message_name(kind: Any, where: str) -> str:
    """The name of a message's class.

    Parameters:
        kind: a class declared by `@message`.
        where: who asks, for messages.

    Raises:
        TypeError: it is none.
    """
    return _packet_name(kind, "message", where)


class Registry:
    """The workflows that a worker knows, by name.

    Parameters:
        workflows: what `@pgflow.workflow` made.

    Raises:
        TypeError: something else than a workflow.
        ValueError: two workflows of one name.

    Example:
        Registry([checkout, refund]).get("checkout")
    """

    def __init__(self, workflows: Iterable[Workflow[Any, Any]]) -> None:
        self._by_name: dict[str, Workflow[Any, Any]] = {}
        for found in workflows:
            if not isinstance(found, Workflow):
                raise TypeError(
                    f"expected workflows (functions decorated with @pgflow.workflow), found {found!r}"
                )
            other = self._by_name.setdefault(found.name, found)
            if other.fn is not found.fn:
                raise ValueError(
                    f'two workflows are called "{found.name}": {other.where} and {found.where}. Give one of them another '
                    'name: @pgflow.workflow(name="...")'
                )

    @property
    def names(self) -> list[str]:
        """The names, sorted."""
        return sorted(self._by_name)

    def get(self, name: str) -> Workflow[Any, Any]:
        """The workflow of that name.

        Raises:
            KeyError: there is none.
        """
        return self._by_name[name]


def _packet(cls: Any, name: str | None, sort: str) -> Any:
    def decorate(found: Any) -> Any:
        if not isinstance(found, type) or not (
            dataclasses.is_dataclass(found) or issubclass(found, BaseModel)
        ):
            raise TypeError(
                f"@pgflow.{sort} on {_place(found)}: expected a dataclass or a pydantic model, found {_sort(found)}. Put "
                f"@pgflow.{sort} above @dataclass."
            )
        chosen = _checked_name(_snake(found.__name__) if name is None else name, sort)
        setattr(cast(Any, found), f"__pgflow_{sort}__", chosen)
        return found

    return decorate if cls is None else decorate(cls)


def _packet_name(kind: Any, sort: str, where: str) -> str:
    name = vars(kind).get(f"__pgflow_{sort}__") if isinstance(kind, type) else None
    if not isinstance(name, str):
        raise TypeError(f"{where}: expected a class declared by @pgflow.{sort}, found {kind!r}")
    return name


def _checked_name(name: str, sort: str) -> str:
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
        raise ValueError(
            f"the name of a {sort} is {name!r}; expected 1 to 200 printable characters"
        )
    return name


def _timeout(value: timedelta | float | None) -> float | None:
    if value is None:
        return None
    limit = seconds(value, "timeout of an activity")
    if limit == 0:
        raise ValueError("timeout of an activity: expected more than 0 seconds, or None for no limit")
    return limit


def _checked_retry(policy: RetryPolicy) -> RetryPolicy:
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"retry: expected a pgflow.RetryPolicy, found {policy!r}")
    return policy


def _place(found: Any) -> str:
    name = getattr(found, "__qualname__", None)
    return f"{found.__module__}.{name}" if name else repr(found)


def _sort(found: Any) -> str:
    if isinstance(found, type):
        return "a class"
    if inspect.isasyncgenfunction(found):
        return "an async generator"
    if inspect.isfunction(found):
        return "a plain `def`"
    return f"a {type(found).__name__}"


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
