"""Which steps a retry of a failed workflow runs again: those whose failures left the workflow together.

A failure that a step delivers to the code remembers the step and how many steps had been called until then. When it
leaves the workflow, alone or in a group, its step is one to reset. If the code had called another step after that, it
had caught the failure and gone on: running the step again would bring history and code apart, so only a fork helps.
"""

from __future__ import annotations

from typing import Any, SupportsIndex

from pgflow.codec.exception_groups import everything_in, inside, is_group
from pgflow.execution.engine.interfaces import StepView

_MARK = "__pgflow_failure__"
_ABANDONED = "__pgflow_abandoned__"


class _RunLocal:
    """What belongs to this run alone: a pickled or deep-copied failure does not take it along."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return _nothing, ()


def _nothing() -> None:
    return None


class _OriginMark(_RunLocal):
    """What a failure remembers: its step, how many steps had been called by then, and the failures raised together with
    it.
    """

    __slots__ = ("also", "calls", "step")

    def __init__(self, step: StepView, calls: int, also: tuple[BaseException, ...]) -> None:
        self.step = step
        self.calls = calls
        self.also = also


class _AbandonedSteps(_RunLocal):
    """Steps that were abandoned by an error."""

    __slots__ = ("steps",)

    def __init__(self, steps: list[StepView]) -> None:
        self.steps = steps


def mark(failure: BaseException, step: StepView, calls: int | None = None) -> BaseException:
    """Let a failure remember the step that it is delivered by.

    Args:
        calls: how many steps had been called when the code first learnt of it, if that was before now.
    """
    _remember(failure, _MARK, _OriginMark(step, step.scope.run.calls if calls is None else calls, ()))
    return failure


def together(failure: BaseException, others: list[BaseException]) -> BaseException:
    """Let a failure that is raised for several remember the others."""
    found = _remembered(failure, _MARK)
    if found is not None:
        _remember(failure, _MARK, _OriginMark(found.step, found.calls, tuple(others)))
    return failure


def leaves_behind(failure: BaseException, steps: list[StepView]) -> None:
    """Let a failure that leaves a body remember the steps that the body abandoned because of it."""
    if steps:
        found = _remembered(failure, _ABANDONED)
        _remember(failure, _ABANDONED, _AbandonedSteps([*(found.steps if found else ()), *steps]))


def abandoned_by(error: BaseException) -> list[StepView]:
    """The steps that were abandoned by an error on its way out."""
    return [step for one in everything_in(error) if (found := _remembered(one, _ABANDONED)) for step in found.steps]


def _remember(failure: BaseException, name: str, what: _RunLocal) -> None:
    # Past the class's own `__setattr__`: a frozen one would refuse and raise another error in place of this one.
    object.__setattr__(failure, name, what)


def _remembered(failure: BaseException, name: str) -> Any:
    # This too bypasses the class, which may answer anything it is asked for.
    try:
        return object.__getattribute__(failure, name)
    except AttributeError:
        return None


def steps_of(error: BaseException) -> tuple[list[StepView], int | None]:
    """The steps whose failures an error consists of, in location order, and how many steps had been called at the
    first.

    None (and no number) if anything in it is not a step's failure.
    """
    found: dict[StepView, int] = {}
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if is_group(one):
            waiting.extend(inside(one))
            continue
        remembered = _remembered(one, _MARK)
        if remembered is None:
            return [], None
        found[remembered.step] = remembered.calls
        waiting.extend(remembered.also)
    steps = sorted(found, key=lambda step: step.location)
    return steps, min(found.values()) if found else None
