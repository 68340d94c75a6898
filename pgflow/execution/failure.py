"""Which steps a retry of a failed workflow runs again: those whose failures left the workflow together.

A failure that a step delivers to the code remembers the step and how many steps had been called until then. When it
leaves the workflow, alone or in a group, its step is one to reset. If the code had called another step after that, it had
caught the failure and gone on: running the step again would bring history and code apart, so only a fork helps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pgflow.execution.step import Step

_MARK = "__pgflow_failure__"
_ABANDONED = "__pgflow_abandoned__"


class _Mark(NamedTuple):
    """What a failure remembers."""

    step: Step
    calls: int
    also: tuple[BaseException, ...]


def mark(failure: BaseException, step: Step) -> BaseException:
    """Let a failure remember the step that it is delivered by."""
    setattr(failure, _MARK, _Mark(step, step.scope.run.calls, ()))
    return failure


def together(failure: BaseException, others: list[BaseException]) -> BaseException:
    """Let a failure that is raised for several remember the others."""
    found = getattr(failure, _MARK, None)
    if found is not None:
        setattr(failure, _MARK, found._replace(also=tuple(others)))
    return failure


def leaves_behind(failure: BaseException, steps: list[Step]) -> None:
    """Let a failure that leaves a body remember the steps that the body abandoned by it."""
    setattr(failure, _ABANDONED, [*getattr(failure, _ABANDONED, ()), *steps])


def abandoned_by(error: BaseException) -> list[Step]:
    """The steps that were abandoned by an error on its way out."""
    found: list[Step] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        found.extend(getattr(one, _ABANDONED, ()))
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
    return found


def steps_of(error: BaseException) -> tuple[list[Step], int | None]:
    """The steps whose failures an error consists of, in location order, and how many steps had been called at the first.

    None of them (and no number) when anything in it is no step's failure.
    """
    found: dict[Step, int] = {}
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
            continue
        remembered = getattr(one, _MARK, None)
        if remembered is None:
            return [], None
        found[remembered.step] = remembered.calls
        waiting.extend(remembered.also)
    steps = sorted(found, key=lambda step: step.location)
    return steps, min(found.values()) if found else None
