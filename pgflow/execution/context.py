"""`WorkflowContext`: what a workflow's code calls. Every step here is durable.

A step method fixes its location when it is called and returns a coroutine that starts when it is awaited.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime, timedelta
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from pgflow.definitions.decorated import not_a_workflow, not_an_activity
from pgflow.definitions.descriptors import Activity, Workflow
from pgflow.definitions.functions import StepContext
from pgflow.definitions.packets import message_name
from pgflow.execution.checks import (
    check_closure,
    check_number,
    check_removed,
    check_version_number,
    named_signals,
)
from pgflow.execution.engine.failure_origin import together
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.repeated import repeats
from pgflow.execution.engine.unawaited import aside, called
from pgflow.execution.steps.activity import ActivityStep
from pgflow.execution.steps.branch import BranchStep
from pgflow.execution.steps.child import StartsChildren
from pgflow.execution.steps.listen import ListenStep
from pgflow.execution.steps.loop import Break, Continue, LoopPlan, LoopStep
from pgflow.execution.steps.loop_types import loop_types
from pgflow.execution.steps.publish import PublishStep
from pgflow.execution.steps.signal import SignalStep
from pgflow.execution.steps.sleep import SleepStep, TimeoutStep
from pgflow.execution.steps.version_marks import check_version, removed
from pgflow.history.location import display
from pgflow.model.moments import LAST, in_utc
from pgflow.observe.log_records import ContextLogger, fields_of, logger_of

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class _LoopBody(Protocol[S, V_co]):
    """The body of a loop. With a protocol, unlike with a `Callable`, type checkers take the state's type from the
    body's annotations and not only from the first state, which may be `[]`.
    """

    def __call__(self, ctx: WorkflowContext, state: S, /) -> Awaitable[Continue[S] | Break[V_co]]: ...


class WorkflowContext(StartsChildren, StepContext):
    """The durable steps of a workflow, a branch or a loop's turn.

    One context belongs to one task: code that runs concurrently takes a branch of its own (`join`, `branch`).
    """

    _context_of = "workflow"
    __slots__ = ("_scope", "_version")

    def __init__(self, scope: ScopeView, version: int = 1) -> None:
        self._scope = scope
        self._version = version

    # Facts

    @property
    def id(self) -> uuid.UUID:
        """The workflow's id."""
        return self._scope.run.claimed.workflow_id

    @property
    def name(self) -> str:
        """The workflow's registered name."""
        return self._scope.run.claimed.name

    @property
    def tags(self) -> dict[str, Any]:
        """The tags given at dispatch."""
        return dict(self._scope.run.claimed.tags)

    @property
    def created_at(self) -> datetime:
        """When the workflow was dispatched, by the database's clock."""
        return self._scope.run.claimed.created_at

    @property
    def parent_id(self) -> uuid.UUID | None:
        """The workflow that dispatched this one, if one did."""
        return self._scope.run.claimed.parent_id

    @property
    def logger(self) -> ContextLogger:
        """A logger whose records say which workflow this is; silent while the code only repeats what it has done.

        It is the logger of the module that defines the workflow. If the workflow goes on in another process, a line
        after the last recorded result may be written again: nothing tells whether it was written before.

        Example:
            ctx.logger.info("paid %s", receipt)
        """
        scope, run = self._scope, self._scope.run
        fields = fields_of(run.claimed)
        if scope.location:
            fields["location"] = display(scope.location)
        return ContextLogger(logger_of(run.workflow.fn), fields, lambda: repeats(scope))

    def now(self) -> datetime:
        """The time of the last event that this branch has passed: the same on every replay."""
        return self._scope.now

    def random(self) -> float:
        """A number in [0, 1), the same on every replay."""
        return self._scope.random().random()

    def uuid4(self) -> uuid.UUID:
        """A random UUID, the same on every replay."""
        numbers: random.Random = self._scope.random()
        return uuid.UUID(int=numbers.getrandbits(128), version=4)

    # Steps

    def activity(self, fn: Activity[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run an activity; returns its recorded result, converted back.

        Raises:
            ActivityFailed: after the last attempt.
            TypeError: the arguments do not fit the activity's signature.
            SerializationError: an argument cannot be stored.

        Example:
            receipt = await ctx.activity(charge, order)
        """
        if not isinstance(fn, Activity):
            raise not_an_activity(fn, "ctx.activity(...)")
        step = ActivityStep(self._scope, self._version, fn, args, kwargs)
        coroutine = self._scope.unfinished[step] = step.run()  # as `called` has it, written out
        return coroutine

    def sleep(self, duration: timedelta | float) -> Coroutine[Any, Any, None]:
        """Sleep durably, by the database's clock.

        Args:
            duration: a timedelta or seconds, not negative.

        Raises:
            ValueError: it is no duration, or ends after the year 9999.

        Example:
            await ctx.sleep(timedelta(days=30))
        """
        return called(SleepStep(self._scope, self._version, self._duration(duration, "sleep"), None))

    def sleep_until(self, moment: datetime) -> Coroutine[Any, Any, None]:
        """Sleep durably until a moment of the database's clock.

        Raises:
            ValueError: the datetime is naive, or after the year 9999 in UTC.

        Example:
            await ctx.sleep_until(datetime(2030, 1, 1, tzinfo=UTC))
        """
        return called(SleepStep(self._scope, self._version, None, in_utc(moment, "ctx.sleep_until: moment")))

    def timeout(self, duration: timedelta | float) -> TimeoutStep:
        """A durable deadline around steps.

        Raises:
            TimeoutError: in the code of the block, when the deadline passes.
            ValueError: it is no duration, or ends after the year 9999.

        Example:
            async with ctx.timeout(60):
                await ctx.activity(slow)
        """
        return TimeoutStep(self._scope, self._version, self._duration(duration, "timeout"))

    def listen(self, *types: type, timeout: timedelta | float | None = None) -> Coroutine[Any, Any, Any]:
        """The next signal of these types, in the order in which they arrived; None when `timeout` passes first.

        Args:
            types: classes declared by `@pgflow.signal`.
            timeout: a timedelta or seconds; the deadline survives crashes.

        Raises:
            TypeError: a class that is no signal.
            ValueError: the timeout is no duration, or ends after the year 9999.

        Example:
            approved = await ctx.listen(Approved, timeout=timedelta(days=3))
        """
        return self._listen(types, None, timeout)

    def listen_many(
        self, *types: type, limit: int = 100, timeout: timedelta | float | None = None
    ) -> Coroutine[Any, Any, list[Any]]:
        """The next 1 to `limit` signals of these types; [] when `timeout` passes first.

        Args:
            types: classes declared by `@pgflow.signal`.
            limit: the most signals to take, at least 1.
            timeout: a timedelta or seconds.

        Example:
            batch = await ctx.listen_many(Reading, limit=500, timeout=60)
        """
        check_number(limit, "ctx.listen_many: limit", 1)
        return self._listen(types, limit, timeout)

    def _listen(
        self, types: tuple[type, ...], limit: int | None, timeout: timedelta | float | None
    ) -> Coroutine[Any, Any, Any]:
        method = "listen" if limit is None else "listen_many"
        named = named_signals(types, method)
        wait = None if timeout is None else self._duration(timeout, method)
        return called(ListenStep(self._scope, self._version, named, limit, wait))

    def signal(
        self,
        body: Any,
        *,
        to: uuid.UUID | str | None = None,
        workflow: Workflow[Any, Any] | str | None = None,
        tags: Mapping[str, Any] | None = None,
        missing_ok: bool = False,
    ) -> Coroutine[Any, Any, uuid.UUID | None]:
        """Send a signal to a workflow; its `listen` takes it once.

        Args:
            body: an instance of a class declared by `@pgflow.signal`.
            to: the receiver's id; or else:
            workflow, tags: the oldest live workflow of this name whose tags contain these (else a failed one) receives
                it.
            missing_ok: whether None is returned instead of an error when nobody receives it.

        Returns:
            The signal's id.

        Raises:
            WorkflowNotFound: nothing matches, or it is completed or cancelled; recorded, a replay raises it again.
            TypeError: the body is no signal, or of `to` and `workflow` neither or both are given.
            SerializationError: the body cannot be stored, or is too large.

        Example:
            await ctx.signal(Approved(by="eva"), workflow=checkout, tags={"order": 7})
        """
        return called(SignalStep(self._scope, self._version, body, to, workflow, tags, missing_ok))

    def publish(self, message: Any, tags: Mapping[str, Any] | None = None) -> Coroutine[Any, Any, None]:
        """Send a message to those who are subscribed now; it may be lost, and a replay does not send it again.

        Args:
            message: an instance of a class declared by `@pgflow.message`.
            tags: a flat object of at most 4,096 bytes, by which subscribers choose.

        Raises:
            TypeError: it is no message.
            SerializationError: it cannot be stored, or is too large.

        Example:
            await ctx.publish(Progress(done=7), tags={"customer": 42})
        """
        name = message_name(type(message), "ctx.publish")
        return called(PublishStep(self._scope, self._version, name, message, tags))

    @overload
    def loop(
        self,
        body: Callable[[WorkflowContext, S], Awaitable[Continue[S] | Break[V]]],
        state: S = None,  # type: ignore[assignment]  # a loop without state
        commit_interval: int = 20,
        keep_iterations: int = 100,
    ) -> Coroutine[Any, Any, V]: ...

    @overload
    def loop(
        self,
        body: _LoopBody[S, V],
        state: S = None,  # type: ignore[assignment]  # a loop without state
        commit_interval: int = 20,
        keep_iterations: int = 100,
    ) -> Coroutine[Any, Any, V]: ...

    def loop(
        self,
        body: Callable[[WorkflowContext, Any], Awaitable[Continue[Any] | Break[V]]],
        state: Any = None,
        commit_interval: int = 20,
        keep_iterations: int = 100,
    ) -> Coroutine[Any, Any, V]:
        """Run `body(ctx, state)` again and again until it returns `Break(value)`; finished turns are forgotten.

        Args:
            body: returns `Continue(state)` or `Break(value)`.
            state: what the first turn receives.
            commit_interval: how many turns end between two advancements, at least 1.
            keep_iterations: how many forgotten turns are kept for people to read; 0 keeps none.

        Raises:
            SerializationError: the state cannot be stored, or an annotation of the body names what cannot be found.

        Example:
            total = await ctx.loop(page, state=0)
        """
        check_closure(body, "loop")
        check_number(commit_interval, "ctx.loop: commit_interval", 1)
        check_number(keep_iterations, "ctx.loop: keep_iterations", 0)
        version = self._version
        state_type, value_type = loop_types(body)
        plan = LoopPlan(
            lambda scope, given: _called(body, WorkflowContext(scope, version), given),
            state_type,
            value_type,
            commit_interval,
            keep_iterations,
        )
        name = getattr(body, "__name__", type(body).__name__)
        return called(LoopStep(self._scope, name, version, plan, state))

    def branch(self, closure: Callable[[WorkflowContext], Awaitable[R]]) -> Coroutine[Any, Any, R]:
        """Run `closure(branch_ctx)` on a branch of history of its own.

        Example:
            await asyncio.gather(ctx.branch(first), ctx.branch(second))
        """
        check_closure(closure, "branch")
        version = self._version
        name = getattr(closure, "__name__", type(closure).__name__)
        step = BranchStep(
            self._scope,
            name,
            version,
            lambda scope: _called(closure, WorkflowContext(scope, version)),
        )
        return called(step)

    def inline(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run another workflow's body as a branch of this one.

        Raises:
            TypeError: it is no workflow, or the arguments do not fit its signature.
            SerializationError: an argument cannot be stored.

        Example:
            receipt = await ctx.inline(checkout, order)
        """
        if not isinstance(workflow, Workflow):
            raise not_a_workflow(workflow, "ctx.inline(...)")
        workflow.start_options({}, (), 0, "ctx.inline")
        given, named = workflow.decode_arguments(
            workflow.encode_arguments(args, kwargs, self._scope.run.limits.payload)
        )
        step = BranchStep(
            self._scope,
            workflow.name,
            self._version,
            lambda scope: _called(workflow.fn, WorkflowContext(scope), *given, **named),
        )
        return called(step)

    def join(
        self, *steps: Awaitable[Any] | Callable[[WorkflowContext], Awaitable[Any]]
    ) -> Coroutine[Any, Any, list[Any]]:
        """Run steps and branch closures together; waits for all, then raises the first failure in argument order.

        Returns:
            The results in argument order.

        Example:
            a, b = await ctx.join(ctx.activity(fetch, 1), second_half)
        """
        for step in steps:
            if not inspect.isawaitable(step):
                check_closure(step, "join")
        awaitables = [step if inspect.isawaitable(step) else self.branch(step) for step in steps]
        return aside(self._scope, None, _join, awaitables)

    def _duration(self, value: timedelta | float, step: str) -> timedelta:
        """A duration given to a step of this body.

        It is checked by the body's own time, so that whether its end is within the calendar is the same on every
        replay.
        """
        try:
            if isinstance(value, bool):
                raise TypeError("a truth value")
            duration = value if isinstance(value, timedelta) else timedelta(seconds=value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"ctx.{step}({value!r}): expected a timedelta or a number of seconds") from error
        except OverflowError:
            duration = timedelta.max if cast("float", value) > 0 else timedelta.min
        if duration < timedelta(0):
            raise ValueError(f"ctx.{step}({duration!r}): expected a duration that is not negative")
        if duration > LAST - self._scope.now:
            raise ValueError(
                f"ctx.{step}: expected a duration that ends within the year 9999, found {duration.days:,} days or more"
            )
        return duration

    # Versions

    def v(self, version: int) -> WorkflowContext:
        """The same steps at another version: insertions into workflows that run already.

        Example:
            await ctx.v(2).activity(fraud_check, order)
        """
        return WorkflowContext(self._scope, check_version_number(version, "v"))

    def check_version(self, version: int) -> Coroutine[Any, Any, int]:
        """`version` for new history, the recorded version for old.

        Raises:
            ValueError: it is no version.

        Example:
            if await ctx.check_version(2) >= 2: ...
        """
        check_version_number(version, "check_version")
        return aside(self._scope, f"ctx.check_version({version})", check_version, self._scope, version)

    def removed(self, kind: str, name: str = "") -> Coroutine[Any, Any, None]:
        """Stand in place of a step that used to be here.

        Args:
            kind: what it was, as history shows it.
            name: its name, for kinds that have one.

        Raises:
            ValueError: there is no such kind, or its steps have names.

        Example:
            await ctx.removed("activity", "send_fax")
        """
        check_removed(kind, name)
        return aside(self._scope, f"ctx.removed({kind!r}, {name!r})", removed, self._scope, self._version, kind, name)


async def _join(awaitables: list[Any]) -> list[Any]:
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise together(failures[0], failures[1:])
    return list(results)


async def _called(closure: Callable[..., Awaitable[R]], /, *args: Any, **kwargs: Any) -> R:
    """Call a body, which may be a plain function that returns an awaitable, within its scope."""
    return await closure(*args, **kwargs)
