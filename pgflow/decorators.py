"""The decorators `@workflow`, `@activity`, `@signal` and `@message`, typed by the contexts that functions are given."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    TypeVar,
    cast,
    overload,
)

from pydantic import BaseModel

from pgflow.definitions.decorated import name_for
from pgflow.definitions.descriptors import (
    DEFAULT_TIMEOUT,
    Activity,
    P,
    T,
    Workflow,
    activity_of,
)
from pgflow.definitions.functions import checked_name, place, sort_of
from pgflow.definitions.options import deadline_of
from pgflow.definitions.retry import RetryPolicy, checked_retry, kept_for, timeout_of
from pgflow.definitions.signature import parameters_of

if TYPE_CHECKING:
    from pgflow.execution.activities.activity_context import ActivityContext
    from pgflow.execution.context import WorkflowContext


C = TypeVar("C", bound=type)
S = TypeVar("S")
"""The object of a method."""

WorkflowFunction = Callable[Concatenate["WorkflowContext", P], Coroutine[Any, Any, T]]


@overload
def workflow(fn: WorkflowFunction[P, T], /) -> Workflow[P, T]: ...


@overload
def workflow(
    *,
    name: str | None = None,
    timeout: timedelta | float | None = None,
    keep: timedelta | float | Literal["forever"] | None = None,
) -> Callable[[WorkflowFunction[P, T]], Workflow[P, T]]: ...


def workflow(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: timedelta | float | None = None,
    keep: timedelta | float | Literal["forever"] | None = None,
) -> Any:
    """Register an `async def` whose first parameter is its `WorkflowContext` as a workflow.

    Args:
        name: what it is called in the database; the function's name if not given.
        timeout: how long the whole workflow may take (a timedelta or seconds) from its dispatch, its last retry, rewind
            or fork; then it is cancelled, and fails with `WorkflowTimeout`. None: as long as it needs. Whoever
            dispatches it by its name alone does not know of this.
        keep: how long one stays in the database after it has completed or was cancelled (a timedelta, seconds, or
            "forever"), unless an operator says otherwise; stored when a worker that knows it starts. None: that is not
            said here.

    Raises:
        TypeError: it is not an `async def`, or has no parameter for the context.
        ValueError: a `timeout` or `keep` that is no duration above 0.

    Example:
        @pgflow.workflow
        async def checkout(ctx: pgflow.WorkflowContext, order: Order) -> Receipt: ...
    """

    limit = deadline_of(timeout)
    kept = None if keep is None else kept_for(keep, "keep")

    def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
        chosen = name_for(function, "workflow", name)
        return Workflow(function, chosen, *parameters_of(function), limit, keep=kept)

    return decorate if fn is None else decorate(fn)


@overload
def activity(fn: Callable[Concatenate[ActivityContext, P], Awaitable[T]], /) -> Activity[P, T]: ...


@overload
def activity(fn: Callable[Concatenate[ActivityContext, P], T], /) -> Activity[P, T]: ...


@overload
def activity(fn: Callable[Concatenate[S, ActivityContext, P], Awaitable[T]], /) -> Activity[P, T]: ...


@overload
def activity(fn: Callable[Concatenate[S, ActivityContext, P], T], /) -> Activity[P, T]: ...


@overload
def activity(
    *,
    name: str | None = None,
    timeout: timedelta | float | None = DEFAULT_TIMEOUT,
    heartbeat_timeout: timedelta | float | None = None,
    total_timeout: timedelta | float | None = None,
    retry: RetryPolicy | None = None,
    transactional: bool = False,
) -> _ActivityDecorator: ...


def activity(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    timeout: timedelta | float | None = DEFAULT_TIMEOUT,
    heartbeat_timeout: timedelta | float | None = None,
    total_timeout: timedelta | float | None = None,
    retry: RetryPolicy | None = None,
    transactional: bool = False,
) -> Any:
    """Register a function whose first parameter is its `ActivityContext` as an activity.

    A method may be one (`self`, then the context): it is called on the object of its class that the worker was given.

    Args:
        name: what it is called in history; the function's name if not given.
        timeout: how long one attempt may take (a timedelta or seconds); None: for ever.
        heartbeat_timeout: how long an attempt may go on without `ctx.heartbeat()`; None: it need not call that.
        total_timeout: how long all attempts together may take, with the pauses between them and the time in which no
            worker runs; None: as long as the retry policy lets them.
        retry: when it is tried again; five attempts with growing delays if not given.
        transactional: its result commits in the transaction of its own database writes.

    Raises:
        TypeError: no parameter for the context, or not a function.
        ValueError: an option out of its range.

    Example:
        @pgflow.activity(timeout=timedelta(seconds=30))
        async def charge(ctx: pgflow.ActivityContext, order: Order) -> Receipt: ...
    """
    limit = timeout_of(timeout)
    silence, total = timeout_of(heartbeat_timeout, "heartbeat_timeout"), timeout_of(total_timeout, "total_timeout")
    policy = RetryPolicy() if retry is None else checked_retry(retry)

    def decorate(function: Callable[..., Any]) -> Activity[Any, Any]:
        chosen = name_for(function, "activity", name)
        return activity_of(function, chosen, limit, policy, transactional, silence, total)

    return decorate if fn is None else decorate(fn)


class _ActivityDecorator:
    """The type of `@activity(...)` with options: an `async def` gives its result's type, a plain `def` its own."""

    @overload
    def __call__(self, fn: Callable[Concatenate[ActivityContext, P], Awaitable[T]], /) -> Activity[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[ActivityContext, P], T], /) -> Activity[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[S, ActivityContext, P], Awaitable[T]], /) -> Activity[P, T]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[S, ActivityContext, P], T], /) -> Activity[P, T]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Activity[Any, Any]:
        raise NotImplementedError  # pragma: no cover — stands for a plain closure


@overload
def signal(cls: C, /) -> C: ...


@overload
def signal(*, name: str | None = None) -> Callable[[C], C]: ...


def signal(cls: Any = None, /, *, name: str | None = None) -> Any:
    """Declare a dataclass or pydantic model as a signal.

    Args:
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

    Args:
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


def _packet(cls: Any, name: str | None, sort: str) -> Any:
    def decorate(found: Any) -> Any:
        if not isinstance(found, type) or not (dataclasses.is_dataclass(found) or issubclass(found, BaseModel)):
            raise TypeError(
                f"@pgflow.{sort} on {place(found)}: expected a dataclass or a pydantic model, found {sort_of(found)}. "
                f"Put @pgflow.{sort} above @dataclass."
            )
        chosen = checked_name(_snake(found.__name__) if name is None else name, sort)
        setattr(cast(Any, found), f"__pgflow_{sort}__", chosen)
        return found

    return decorate if cls is None else decorate(cls)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
