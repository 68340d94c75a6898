"""Children: the step that starts one (`ctx.dispatch`) and the step that awaits its outcome (`await handle.output()`).

Each is a step of the body that awaits it, so a child may be started in one branch and awaited in another. A child's
failure and its cancellation reach the code that awaits its output, which may catch them; they are recorded like any
result.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from threading import get_ident
from typing import Any, Generic, ParamSpec, TypeVar, overload
from uuid import UUID

from pgflow.codec import decode_error, encode_error
from pgflow.definitions.calls import Options, input_of, output_of, workflow_name
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.options import CHILD, UNSET, given_options
from pgflow.errors import PgflowError, WorkflowNotFound
from pgflow.execution.engine.crossings import AwaitingStep, CrossingStep
from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.recorded_arguments import compare
from pgflow.execution.engine.unawaited import called
from pgflow.history.events import (
    KIND_CHILD_OUTPUT,
    KIND_CHILD_WORKFLOW,
    STATUS_COMPLETED,
    STATUS_FAILED,
)
from pgflow.history.location import display
from pgflow.model.commands import Dispatch, Dispatched, Standing

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
S = TypeVar("S")


class ChildHandle(Generic[R]):
    """A child that `ctx.dispatch` has started.

    Attributes:
        id: its id.
    """

    __slots__ = ("_name", "_scope", "_version", "_workflow", "id")

    def __init__(self, scope: ScopeView, version: int, id: UUID, name: str, workflow: Workflow[Any, R] | None) -> None:
        self.id = id
        self._scope = scope
        self._version = version
        self._name = name
        self._workflow = workflow

    def output(self, ctx: StartsChildren | None = None) -> Coroutine[Any, Any, R]:
        """Wait for the child's output, converted by its annotation; the workflow sleeps until the child has ended.

        Args:
            ctx: the context whose step this is. If not given, that of the calling body (workflow, branch or turn), at
                the version at which the child was dispatched.

        Raises:
            WorkflowFailed: the child failed.
            WorkflowCancelled: it was cancelled.

        Example:
            child = await ctx.dispatch(checkout, order)
            receipt = await child.output()
        """
        if ctx is not None:
            scope, version = ctx._scope, ctx._version
        else:
            scope, version = self._body(), self._version
        return called(OutputStep(scope, version, self.id, self._name, self._workflow))

    def _body(self) -> ScopeView:
        """The innermost body that the current task runs; if it runs none, the body that the error names."""
        run = self._scope.run
        if run.loop.thread != get_ident():
            return self._scope
        return run.bodies.get(asyncio.current_task(), self._scope)

    def __repr__(self) -> str:
        return f"ChildHandle({str(self.id)!r})"


class DispatchStep(CrossingStep):
    """One child.

    Args:
        workflow: the workflow, or its name.
        args, kwargs: its arguments.
        options: tags, uniqueness, when it may start and its deadline, checked.
        priority, queue: those of this workflow if None.
        detached: whether cancelling this workflow does not reach it.
    """

    kind = KIND_CHILD_WORKFLOW
    __slots__ = ("_request", "_workflow")

    def __init__(
        self,
        scope: ScopeView,
        version: int,
        workflow: Workflow[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
        priority: int | None,
        queue: str | None,
        detached: bool,
    ) -> None:
        self._workflow = workflow if isinstance(workflow, Workflow) else None
        name = workflow_name(workflow)
        limit = scope.run.limits.payload
        # Arguments that do not fit must not use up a location; a replayed step does not need them at all.
        ended = scope.holds_end_of(self.kind, name, version)
        text = None if ended else input_of(workflow, args, kwargs, limit)[1]
        super().__init__(scope, name, version)
        self.input = text
        if self.event is not None:
            meaning = None if self._workflow is None else self._workflow.meaning_of
            compare(self, lambda: text if text is not None else input_of(workflow, args, kwargs, limit)[1], meaning)
        self._request = Dispatch(
            UUID(int=0),
            name,
            text or "{}",
            options.tags_text,
            options.unique,
            options.run_at,
            priority,
            queue,
            bool(detached),
            options.timeout,
        )

    def command(self, id: UUID) -> Dispatch:
        return self._request._replace(id=id)

    def answered(self, answer: Dispatched) -> None:
        if answer.name == self.name and not answer.older:
            output = json.dumps({"id": str(answer.id)}, separators=(",", ":"))
            self.scope.run.finish(self, STATUS_COMPLETED, output)
            return
        why = (
            "is that of a child which an earlier workflow of this id had started. That one has been removed, and its "
            "child is still there. Remove it as well (`pgflow prune`), then rewind this workflow to before the step; "
            "or start it under another id."
            if answer.older
            else f'belongs to a workflow "{answer.name}". Was that one started by hand? Fork this workflow before the '
            "step."
        )
        error = PgflowError(
            f'the child "{self.name}" at {display(self.location)} was not started: the id {answer.id}, which is made '
            f"for it, {why}"
        )
        self.scope.run.finish(self, STATUS_FAILED, error=encode_error(error))

    def result(self, status: str, output: str | None, error: str | None) -> ChildHandle[Any]:
        if status == STATUS_FAILED:
            raise PgflowError(str(decode_error(error or "{}").get("message")))
        id = UUID(json.loads(output or "{}")["id"])
        return ChildHandle(self.scope, self.version, id, self.name, self._workflow)


class OutputStep(AwaitingStep):
    """The wait for a child's end.

    Args:
        child_id: the child.
        name: the name of the child's workflow.
        workflow: its definition, which converts the output, if it is known.
    """

    kind = KIND_CHILD_OUTPUT
    __slots__ = ("_workflow",)

    def __init__(
        self,
        scope: ScopeView,
        version: int,
        child_id: UUID,
        name: str,
        workflow: Workflow[Any, Any] | None,
    ) -> None:
        self.child_id = child_id
        self._workflow = workflow
        super().__init__(scope, name, version)
        text = self.input = f'{{"id":"{child_id}"}}'
        if self.event is not None:
            compare(self, lambda: text)

    def answered(self, standing: Standing | None) -> None:
        run = self.scope.run
        if standing is not None and standing.status == "completed":
            run.finish(self, STATUS_COMPLETED, standing.output)
            return
        recorded = {} if standing is None else decode_error(standing.error or "{}")
        status = "unknown" if standing is None else standing.status
        run.finish(self, STATUS_FAILED, error=json.dumps({**recorded, "status": status}, ensure_ascii=False))

    def result(self, status: str, output: str | None, error: str | None) -> Any:
        if status == STATUS_COMPLETED:
            standing = Standing(self.child_id, self.name, "completed", output, None)
        else:
            ended = str(decode_error(error or "{}").get("status"))
            standing = Standing(self.child_id, self.name, ended, None, error)
        found = output_of(standing, self._workflow)
        if found is None:
            raise WorkflowNotFound(
                f'the child "{self.name}" {self.child_id} awaited at {display(self.location)} is no longer there: it '
                "was removed"
            )
        return found[0]


class StartsChildren:
    """The part of a context that starts children."""

    __slots__ = ()
    _scope: ScopeView
    _version: int

    @overload
    def dispatch(
        self,
        workflow: Workflow[Any, S],
        /,
        *args: Any,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        detached: bool = False,
        run_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, ChildHandle[S]]: ...
    @overload
    def dispatch(
        self,
        workflow: str,
        /,
        *args: Any,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        detached: bool = False,
        run_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, ChildHandle[Any]]: ...
    def dispatch(
        self,
        workflow: Workflow[Any, Any] | str,
        /,
        *args: Any,
        tags: Mapping[str, Any] | None = UNSET,
        unique: bool = UNSET,
        detached: bool = UNSET,
        run_at: datetime | None = UNSET,
        priority: int | None = UNSET,
        queue: str | None = UNSET,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, ChildHandle[Any]]:
        """Start a child: a workflow of its own, with a history of its own, which any worker may run.

        Args:
            workflow: the workflow, or its name (then arguments are given by name).
            tags: a flat object by which it can be found.
            unique: one live workflow, of those dispatched so, for this name and exactly these tags; its handle comes
                back.
            detached: cancelling this workflow does not reach it.
            run_at: not before this moment (with a time zone).
            priority, queue: those of this workflow if not given.

        Returns:
            The child's handle; `await handle.output()` waits for its outcome.

        Raises:
            TypeError: the arguments do not fit the workflow's signature, or an option may be meant for its parameter of
                that name.
            SerializationError: an argument cannot be stored, or is too large.
            ValueError: an option out of its range.

        Example:
            children = [await ctx.dispatch(checkout, order) for order in orders]
            receipts = await asyncio.gather(*[child.output() for child in children])
        """
        given = given_options(
            tags=tags, unique=unique, detached=detached, run_at=run_at, priority=priority, queue=queue
        )
        if isinstance(workflow, Workflow):
            given = {**workflow.start_options(given, CHILD, len(args), "ctx.dispatch")}
        return self._start(workflow, args, kwargs, **given)

    @overload
    def start(
        self, workflow: Workflow[P, S], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, ChildHandle[S]]: ...
    @overload
    def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, ChildHandle[Any]]: ...
    def start(
        self, workflow: Workflow[Any, Any] | str, /, *args: Any, **kwargs: Any
    ) -> Coroutine[Any, Any, ChildHandle[Any]]:
        """Start a child, all arguments being its own, whatever its parameters are called; type checkers compare them.

        Args:
            workflow: the workflow, with options if there are any: `checkout.options(queue="slow", detached=True)`; or
                its name.

        Returns, Raises:
            As `dispatch`.

        Example:
            child = await ctx.start(checkout.options(tags={"customer": 7}), order)
        """
        given = {**workflow.start_options({}, CHILD, 0, "ctx.start")} if isinstance(workflow, Workflow) else {}
        return self._start(workflow, args, kwargs, **given)

    def _start(
        self,
        workflow: Workflow[Any, Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        detached: bool = False,
        run_at: datetime | None = None,
        priority: int | None = None,
        queue: str | None = None,
        timeout: timedelta | float | None = None,
    ) -> Coroutine[Any, Any, ChildHandle[Any]]:
        options = Options(
            tags,
            unique,
            run_at,
            0 if priority is None else priority,
            "default" if queue is None else queue,
            timeout,
        )
        step = DispatchStep(self._scope, self._version, workflow, args, kwargs, options, priority, queue, detached)
        return called(step)
