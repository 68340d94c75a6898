"""Steps that the code calls and never awaits: logged once, by name, when the body that called them has returned.

Python warns about a coroutine that nobody has awaited only where it happens to be freed, and names no step. So a scope
keeps the coroutines of its unfinished steps; those that have not begun are closed when no code can await them any more.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from pgflow.execution.engine.interfaces import ScopeView, StepView
from pgflow.execution.event_loop.stage import offstage
from pgflow.observe.log_records import fields_of

T = TypeVar("T")

log = logging.getLogger("pgflow.execution")

ORIGIN_DEPTH = 6
"""How many frames of a coroutine's origin reach from a step to the line that called it, if Python is asked to keep
them.
"""

_KEPT = 1_000
"""The most coroutines kept that other code may still await."""

_PACKAGE = str(Path(__file__).resolve().parents[2])

UnawaitedCalls = list[tuple["StepView | str | None", "Coroutine[Any, Any, Any] | None"]]
"""What was called, and its coroutine; None for a deadline, which has no coroutine."""


def called(step: StepView) -> Coroutine[Any, Any, Any]:
    """The coroutine that the code is to await, remembered by the step's scope."""
    coroutine = step.scope.unfinished[step] = step.run()
    return coroutine


def aside(scope: ScopeView, what: str | None, call: Callable[..., Any], *args: Any) -> Coroutine[Any, Any, Any]:
    """The coroutine of a call that is no step of its own.

    Args:
        what: what is logged about it if it is never awaited; None: nothing.
        call: called when it is awaited; its result is awaited if it can be.
    """
    token = object()
    if scope.aside is None:
        scope.aside = {}
    coroutine = _begun(scope.aside, token, call, *args)
    scope.aside[token] = what, coroutine
    return coroutine


async def _begun(waiting: dict[Any, Any], token: object, call: Callable[..., Any], *args: Any) -> Any:
    waiting.pop(token, None)
    result = call(*args)
    return await result if inspect.iscoroutine(result) else result


def unawaited(scope: ScopeView) -> UnawaitedCalls:
    """Take from the scopes what was called within a body and below it, and has not begun.

    The first stands at the end of the list, calls that are no steps after them all: a `join` has steps.
    """
    if not (scope.unfinished or scope.children or scope.aside):
        return []  # this is called twice for every run that ends
    found: UnawaitedCalls = []
    apart: UnawaitedCalls = []
    waiting = [scope]
    while waiting:
        one = waiting.pop()
        waiting.extend(one.children)
        for step, coroutine in one.unfinished.items():
            if step.never_entered if coroutine is None else _is_new(coroutine):
                found.append((step, coroutine))
                one.unfinished[step] = None
        if one.aside is not None:
            apart.extend(entry for entry in one.aside.values() if _is_new(entry[1]))
            one.aside.clear()  # the coroutines have it too
    return [*reversed(found), *apart]


def settle_unawaited(scope: ScopeView, found: UnawaitedCalls, returned: bool) -> None:
    """A body has ended: log what can no longer be awaited, if the body has returned, and close it.

    Args:
        found: by `unawaited`.
        returned: whether it has returned: an exception that leaves a body may be why something was not awaited, and
            then nothing is logged.
    """
    while found:
        what, coroutine = found.pop()
        if coroutine is not None and sys.getrefcount(coroutine) > 2:
            keep_unawaited(scope, coroutine)  # a task that has not begun, a variable of an outer body
            continue
        if returned and what is not None:
            _log_once(scope, what, coroutine)
        if coroutine is not None:
            coroutine.close()


def keep_unawaited(scope: ScopeView, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Keep a coroutine that may never begin until the run leaves memory."""
    if not _is_new(coroutine):
        return
    root = scope.run.scope
    if root.aside is None:
        root.aside = {}
    root.aside[coroutine] = None, coroutine
    if len(root.aside) > _KEPT:
        del root.aside[next(iter(root.aside))]


def close_unawaited(scope: ScopeView) -> None:
    """The run leaves memory: close the coroutines that have not begun."""
    for _, coroutine in unawaited(scope):
        if coroutine is not None:
            coroutine.close()


def _is_new(coroutine: Any) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _log_once(scope: ScopeView, what: StepView | str, coroutine: Coroutine[Any, Any, Any] | None) -> None:
    root = scope.run.scope
    if not isinstance(what, str):
        if what.has_ended_row:
            return  # a replay: it was logged then
        key: tuple[str, ...] = (what.kind, what.name, what.location.rpartition(",")[2])
    else:
        key = (what,)
    if root.reported is None:
        root.reported = set()
    if key in root.reported:
        return  # in another turn of a loop
    root.reported.add(key)
    entered = "entered" if coroutine is None else "awaited"
    instead = "Write `async with` before it" if coroutine is None else "Write `await` before it"
    with offstage():
        log.warning(
            "%s: %s was called and never %s (%s): nothing was done. %s, or leave the call out.",
            scope.run.label, what, entered, _place(scope, coroutine), instead,
            extra=fields_of(scope.run.claimed),
        )  # fmt: skip


def _place(scope: ScopeView, coroutine: Any) -> str:
    """The line of the call where Python knows it, else the workflow's first."""
    for file, line, name in getattr(coroutine, "cr_origin", None) or ():
        if not file.startswith(_PACKAGE):
            return f"{file}:{line}, in {name}"
    code = getattr(inspect.unwrap(scope.run.workflow.fn), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno} or below" if code is not None else scope.run.workflow.where
