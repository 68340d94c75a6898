"""What users register: `@workflow` and `@activity`. Frozen descriptors and the registry of a worker.

A descriptor shows the name, the docstring and the signature of the function that it was made of. Called as that
function, an activity wants the context of one; a workflow is never called: what it does would stand in no history.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    overload,
)
from uuid import UUID
from weakref import WeakSet

from pgflow.codec import PAYLOAD_LIMIT, decode, encode
from pgflow.definitions.decorated import Decorated, not_a_workflow, unawaited
from pgflow.definitions.functions import AttemptContext, checked_name, is_async, is_method
from pgflow.definitions.options import UNSET, check_options, given_options, merged_options
from pgflow.definitions.retry import RetryPolicy, checked_retry, timeout_of
from pgflow.definitions.signature import Parameters, ReturnType, parameters_of
from pgflow.errors import NonRetryable, SerializationError

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")

DEFAULT_TIMEOUT = 30.0
"""Seconds that an attempt of an activity may take unless it says otherwise."""

_UNCHANGED: Any = object()

_named: WeakSet[Activity[Any, Any]] = WeakSet()
"""The activities in use, by all of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class Workflow(Decorated, Generic[P, R]):
    """A registered `async def`: made by `@pgflow.workflow`.

    Attributes:
        fn: the function.
        name: what it is called in the database.
    """

    sort = "workflow"
    fn: Callable[..., Coroutine[Any, Any, R]]
    name: str
    _parameters: Parameters = field(repr=False)
    _returned: ReturnType = field(repr=False)
    timeout: float | None = None
    """Seconds after which it is cancelled if it has not ended, unless `options` says otherwise; None: no deadline."""
    chosen: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What `options` has chosen for a start."""
    keep: float | None = None
    """Seconds that one is kept after it has completed or was cancelled; None: the code does not say."""

    if not TYPE_CHECKING:  # for a type checker it cannot be called at all

        def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
            """Refused: its steps would be recorded in no history.

            Raises:
                TypeError: always; it says what to use instead.
            """
            raise TypeError(
                f'the workflow "{self.name}" was called as a function. In a workflow, run it as a branch, `await '
                f"ctx.inline({self.fn.__name__}, ...)`, or as a child, `await ctx.dispatch({self.fn.__name__}, ...)`; "
                "elsewhere start it with a client; in a unit test, `pgflow.testing.run` executes it. Its plain "
                "function is its `__wrapped__`."
            )

    def options(
        self,
        *,
        name: str | None = None,
        id: UUID | str | None = UNSET,
        tags: Mapping[str, Any] | None = UNSET,
        unique: bool = UNSET,
        detached: bool = UNSET,
        run_at: datetime | None = UNSET,
        priority: int = UNSET,
        queue: str = UNSET,
        timeout: timedelta | float | None = UNSET,
        connection: Any = UNSET,
    ) -> Workflow[P, R]:
        """This workflow with options for its start, or under another name.

        Args:
            name: another name in the database.
            id, tags, unique, run_at, priority, queue, connection: as for `client.dispatch`.
            detached: as for `ctx.dispatch`.
            timeout: how long the whole workflow may take (a timedelta or seconds) from its dispatch, its last retry,
                rewind or fork; then it is cancelled, and fails with `WorkflowTimeout`. None: as long as it needs.

        Raises:
            ValueError: a value out of its range.

        Example:
            nightly = report.options(name="nightly_report")
            slow = report.options(queue="slow", tags={"region": "eu"})
            handle = await client.start(slow, queue="an argument of the report")
        """
        given = given_options(
            id=id,
            tags=tags,
            unique=unique,
            detached=detached,
            run_at=run_at,
            priority=priority,
            queue=queue,
            timeout=timeout,
            connection=connection,
        )
        if name is None and not given:
            return self
        check_options(given)
        called = self.name if name is None else checked_name(name, "workflow")
        return dataclasses.replace(self, name=called, chosen={**self.chosen, **given})

    @property
    def parameters(self) -> Parameters:
        """The parameters after the context."""
        return self._parameters

    def may_mean(self, keyword: str, positional: int) -> bool:
        """Whether a keyword may be meant for the function, because it has a parameter of that name that is not given by
        position.

        Args:
            positional: how many arguments are given by position.
        """
        parameters = self._parameters
        return keyword in parameters.names and keyword not in parameters.positional[:positional]

    def start_options(
        self, given: Mapping[str, Any], allowed: Collection[str], positional: int, where: str
    ) -> Mapping[str, Any]:
        """The options of a start.

        Args:
            given: those given by keyword, beside the workflow's arguments.
            allowed: those that have a meaning there.
            positional: how many of the arguments are given by position.
            where: who asks, for messages.

        Raises:
            TypeError: an option has no meaning there, or may be meant for the workflow, which has a parameter of that
                name.
        """
        for name in given:
            if self.may_mean(name, positional):
                start = where.replace("dispatch", "start")
                raise TypeError(
                    f'{where}({name}=...): the workflow "{self.name}" has a parameter "{name}", and {where} takes '
                    f"it for an option of its own. Write `{start}({self.fn.__name__}.options(...), ...)`, which "
                    "passes all its arguments to the workflow; options go into `.options(...)`."
                )
        return self.with_chosen(given, allowed, where)

    def with_chosen(self, given: Mapping[str, Any], allowed: Collection[str], where: str) -> Mapping[str, Any]:
        """What was chosen by `options` and what is given at a start, which goes first; as of `start_options`."""
        options = merged_options(self.chosen, given, allowed, where)
        if self.timeout is None or "timeout" not in allowed or "timeout" in options:
            return options
        return {**options, "timeout": self.timeout}

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int = PAYLOAD_LIMIT) -> str:
        """The input as JSON: an object of the arguments by name.

        Raises:
            TypeError: the arguments do not fit the function's signature.
            SerializationError: an argument cannot be stored.
        """
        return self._parameters.encode(args, kwargs, f'workflow "{self.name}"', limit)

    def encode_named(self, given: Mapping[str, Any], limit: int = PAYLOAD_LIMIT) -> str:
        """The input as JSON, of arguments that are all given by name.

        Raises:
            TypeError: the arguments do not fit the function's signature.
            SerializationError: an argument cannot be stored.
        """
        return self._parameters.encode_named(given, f'workflow "{self.name}"', limit)

    def decode_arguments(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from a stored input.

        Raises:
            SerializationError: the input does not fit the function's signature or annotations.
        """
        return self._parameters.decode(text, f'workflow "{self.name}"')

    def meaning_of(self, text: str) -> dict[str, Any]:
        """A stored input as values by name, those that it leaves out included: two texts of the same meaning are the
        same input.
        """
        return self._parameters.meaning_of(text, f'workflow "{self.name}"')

    def encode_result(self, value: Any, limit: int = PAYLOAD_LIMIT) -> str:
        """The output as JSON.

        Raises:
            SerializationError: the value cannot be stored, or does not fit the annotation.
        """
        try:
            return encode(value, self._returned(), what=f'output of workflow "{self.name}"', limit=limit)
        except SerializationError as error:
            raise unawaited(value, f'the workflow "{self.name}"', "Is an `await` missing?") or error from None

    def decode_result(self, text: str) -> Any:
        """The output from its stored form."""
        return decode(text, self._returned(), what=f'output of workflow "{self.name}"')


@dataclass(frozen=True, slots=True, eq=False)
class Activity(Decorated, Generic[P, R]):
    """A unit of work with side effects: made by `@pgflow.activity`.

    Attributes:
        fn: the function.
        code: what an attempt calls: the function, or, for a method, what finds the worker's object and calls it there.
        name: what it is called in history.
        timeout: seconds that one attempt may take; None: for ever.
        heartbeat_timeout: seconds that an attempt may let pass without a heartbeat; None: it need not give any.
        total_timeout: seconds that all attempts together may take; None: as long as the retry policy lets them.
        retry: when it is tried again.
        transactional: its result commits in the transaction of its own database writes.
        is_async: an `async def`; a plain function runs in a thread.
    """

    sort = "activity"
    fn: Callable[..., Any]
    name: str
    timeout: float | None
    retry: RetryPolicy
    transactional: bool
    is_async: bool
    _parameters: Parameters = field(repr=False)
    _returned: ReturnType = field(repr=False)
    _label: str = field(init=False, repr=False)
    _result: str = field(init=False, repr=False)
    _method: _Method | None = field(default=None, repr=False)
    heartbeat_timeout: float | None = None
    total_timeout: float | None = None
    code: Callable[..., Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        Decorated.__post_init__(self)
        object.__setattr__(self, "code", self.fn if self._method is None else self._method.code)
        object.__setattr__(self, "_label", f'activity "{self.name}"')
        object.__setattr__(self, "_result", f"result of {self._label}")

    def __call__(self, ctx: AttemptContext, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The plain function: for unit tests, and for activities that call others as part of themselves.

        Raises:
            TypeError: the context is none of an activity's; in a workflow, use `ctx.activity`.
        """
        if getattr(ctx.__class__, "_context_of", None) != "activity":
            raise refused_call(self, ctx)
        return self.code(ctx, *args, **kwargs)

    @property
    def called(self) -> str:
        """What it is called in code: `charge`, or `Gateway.charge`."""
        owner = self._method.owner if self._method is not None else None
        return self.fn.__name__ if owner is None else f"{owner.__name__}.{self.fn.__name__}"

    def __set_name__(self, owner: type, name: str) -> None:
        if self._method is not None:
            self._method.stands_in(owner, name)

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Activity[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> BoundActivity[P]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        return self if instance is None or self._method is None else BoundActivity(self, instance)

    def options(
        self,
        *,
        timeout: timedelta | float | None = _UNCHANGED,
        heartbeat_timeout: timedelta | float | None = _UNCHANGED,
        total_timeout: timedelta | float | None = _UNCHANGED,
        retry: RetryPolicy | None = None,
        name: str | None = None,
    ) -> Activity[P, R]:
        """This activity with other options at one call.

        Args:
            timeout: a timedelta or seconds; None: for ever.
            heartbeat_timeout, total_timeout: as for `@pgflow.activity`; None: none.
            retry: another policy.
            name: another name in history.

        Raises:
            ValueError: a value out of its range.

        Example:
            await ctx.activity(charge.options(timeout=5), order)
        """
        changed = dataclasses.replace(
            self,
            timeout=self.timeout if timeout is _UNCHANGED else timeout_of(timeout),
            heartbeat_timeout=self.heartbeat_timeout
            if heartbeat_timeout is _UNCHANGED
            else timeout_of(heartbeat_timeout, "heartbeat_timeout"),
            total_timeout=self.total_timeout
            if total_timeout is _UNCHANGED
            else timeout_of(total_timeout, "total_timeout"),
            retry=self.retry if retry is None else checked_retry(retry),
            name=self.name if name is None else checked_name(name, "activity"),
        )
        if name is not None:
            _named.add(changed)
        return changed

    def encode_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int = PAYLOAD_LIMIT) -> str:
        """The input as JSON: an object of the arguments by name.

        Raises:
            TypeError: the arguments do not fit the function's signature.
            SerializationError: an argument cannot be stored.
        """
        return self._parameters.encode(args, kwargs, self._label, limit)

    def decode_arguments(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments from a stored input."""
        return self._parameters.decode(text, self._label)

    def meaning_of(self, text: str) -> dict[str, Any]:
        """A stored input as values by name, those that it leaves out included: two texts of the same meaning are the
        same input.
        """
        return self._parameters.meaning_of(text, self._label)

    def encode_result(self, value: Any, limit: int = PAYLOAD_LIMIT) -> str:
        """The result as JSON.

        Raises:
            SerializationError: the value cannot be stored, or does not fit the annotation.
        """
        returned = self._returned
        annotation = returned.found[0] if returned.found else returned()
        try:
            return encode(value, annotation, what=self._result, limit=limit)
        except SerializationError as error:
            advice = "Declare it `async def`, let a decorator beneath use functools.wraps, or await it in there."
            raise unawaited(value, f"the {self._label}", advice) or error from None

    def decode_result(self, text: str) -> Any:
        """The result from its stored form."""
        returned = self._returned
        annotation = returned.found[0] if returned.found else returned()
        return decode(text, annotation, what=self._result)


class BoundActivity(Generic[P]):
    """An activity that is a method, bound to an object: the plain method, for unit tests and other activities.

    In a workflow an activity is named by its class, `ctx.activity(Gateway.charge, ...)`.
    """

    __slots__ = ("__self__", "activity")

    def __init__(self, activity: Activity[P, Any], instance: object) -> None:
        self.activity = activity
        self.__self__ = instance

    def __call__(self, ctx: AttemptContext, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The plain method.

        Raises:
            TypeError: the context is none of an activity's.
        """
        if getattr(ctx.__class__, "_context_of", None) != "activity":
            raise refused_call(self.activity, ctx)
        return self.activity.fn(self.__self__, ctx, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<the activity {self.activity.where} of an object>"


class _Method:
    """Which method of which class an activity is; known once the body of the class has been executed."""

    __slots__ = ("name", "owner")

    def __init__(self) -> None:
        self.owner: type | None = None
        self.name = ""

    def stands_in(self, owner: type, name: str) -> None:
        if self.owner is None or not issubclass(owner, self.owner):  # assigned again in another class
            self.owner, self.name = owner, name

    def code(self, ctx: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call it on the process's object of its class."""
        if self.owner is None:
            raise NonRetryable(
                f'activity "{ctx.name}" has a parameter `self`, and was not decorated in the body of its class: put '
                "@pgflow.activity on the method there."
            )
        return getattr(ctx.resource(self.owner), self.name)(ctx, *args, **kwargs)


def refused_call(activity: Activity[Any, Any], ctx: Any) -> TypeError:
    """The error for an activity that is called as a function without a context of its own."""
    kind = getattr(ctx.__class__, "_context_of", None)
    found = f"{ctx!r:.80}" if kind is None else "a workflow's"
    return TypeError(
        f'the activity "{activity.name}" was called as a function, with {found} in place of its '
        f"ActivityContext. In a workflow, write `await ctx.activity({activity.called}, ...)`: only that is "
        "recorded, and not done again by a replay. Its plain function, which takes any context, is its "
        "`__wrapped__`."
    )


def activity_of(
    function: Callable[..., Any],
    name: str,
    timeout: float | None,
    retry: RetryPolicy,
    transactional: bool,
    heartbeat_timeout: float | None,
    total_timeout: float | None,
) -> Activity[Any, Any]:
    """The activity that a function, or a method, is made into."""
    made: Activity[Any, Any] = Activity(
        function,
        name,
        timeout,
        retry,
        transactional,
        is_async(function),
        *parameters_of(function),
        _method=_Method() if is_method(function) else None,
        heartbeat_timeout=heartbeat_timeout,
        total_timeout=total_timeout,
    )
    _named.add(made)
    return made


def activity_names() -> set[str]:
    """The names of all activities that are in use in this process."""
    return {found.name for found in _named}


class Registry:
    """The workflows that a worker knows, by name.

    Args:
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
                raise not_a_workflow(found, "workflows=[...]")
            other = self._by_name.setdefault(found.name, found)
            if other.fn is not found.fn:
                raise ValueError(
                    f'two workflows are called "{found.name}": {other.where} and {found.where}. Give one of them '
                    'another name: @pgflow.workflow(name="...")'
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
