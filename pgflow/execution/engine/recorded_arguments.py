"""Whether a step that replay meets is called with the arguments that were recorded for it.

Replay gives a step what history holds at its place. Code whose arguments depend on what no replay repeats (the order of
a `set`, a clock, a random number) would silently get the result of one item for another. Encoding them again costs
time, and a change of the code may also bring other arguments; so a worker compares them only in strict mode.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pgflow.codec import loads
from pgflow.codec.same import difference
from pgflow.errors import NondeterminismError
from pgflow.execution.engine.interfaces import StepView
from pgflow.history.cursor import named
from pgflow.history.location import display
from pgflow.model.other_arguments import OtherArguments, shortened


def refuse(step: StepView, other: OtherArguments) -> None:
    """What a strict worker does: end the run.

    Raises:
        NondeterminismError: always.
    """
    run = step.scope.run
    run.end_with(
        NondeterminismError(
            f"{run.label}: {other}. A replay would give it the result of the recorded arguments. Do they depend on "
            "the order of a `set` (sort it), on a clock (`ctx.now()`), on chance (`ctx.random()`, `ctx.uuid4()`), or "
            "on what else is another thing in each process? If the code was changed on purpose, run the workflow on "
            "a worker that is not strict. Nothing was written.",
            location=other.location,
            expected=f"{other.step} with the arguments {shortened(other.recorded)}",
            found=f"the arguments {shortened(other.given)}",
        )
    )


def compare(
    step: StepView, given: Callable[[], str], meaning: Callable[[str], Any] | None = None, recorded: str | None = None
) -> None:
    """Report arguments that differ from the recorded ones, if the worker compares them.

    Args:
        step: a step that has been called.
        given: encodes the arguments of today.
        meaning: the meaning of a text, where different texts may mean the same; its JSON value by default.
        recorded: what history holds of them; by default the row's input.
    """
    report = step.scope.run.limits.other_arguments
    event = step.event
    if report is None or event is None:
        return
    if recorded is None:
        recorded = event.input
    if recorded is None:
        return
    try:
        text = given()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    else:
        if text == recorded or _says_the_same(text, recorded, meaning or loads):
            return
    report(step, OtherArguments(display(step.location), named(step.kind, step.name), recorded, text))


def _says_the_same(one: str, other: str, meaning: Callable[[str], Any]) -> bool:
    try:
        return difference(loads(one), loads(other)) is None or difference(meaning(one), meaning(other)) is None
    except Exception:
        return False  # the recorded arguments do not fit today's code


def body_of(kind: type, decode: Callable[..., Any]) -> Callable[[str], Any]:
    """The meaning of a signal or message: its body converted by its class, all else as it is."""

    def meaning(text: str) -> Any:
        said = loads(text)
        said["body"] = decode(json.dumps(said["body"], ensure_ascii=False), kind, what="a body")
        return said

    return meaning
