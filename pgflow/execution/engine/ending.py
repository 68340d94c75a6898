"""How a run ends: the end of its code as an outcome to be written."""

from __future__ import annotations

import asyncio
from typing import Any

from pgflow.codec import class_name, described, encode_error, encode_timeout
from pgflow.errors import EngineError, PgflowError
from pgflow.execution.engine.failure_origin import abandoned_by, steps_of
from pgflow.execution.engine.interfaces import RunView, StepView
from pgflow.execution.engine.unawaited import settle_unawaited, unawaited
from pgflow.execution.event_loop.stage import stage
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome


def outcome_of(run: RunView, root: asyncio.Task[Any]) -> Outcome:
    """The outcome of a run whose code has ended, or that an error of the engine ends; the rows that go with it are
    gathered.
    """
    error: BaseException | None = run.fatal
    output = ""
    if error is None:
        if root.cancelled():
            error = asyncio.CancelledError("the workflow's code cancelled itself")
        else:
            error = root.exception()
        try:
            run.scope.check_latent(error)
            if error is None:
                output = run.workflow.encode_result(root.result(), run.limits.payload)
            elif run.cancelled and root.cancelled():
                unfinished = _abandon_rest(run)
                return Cancelled() if run.claimed.timed_out is None else _timed_out(run, unfinished)
        except BaseException as failure:  # an output's own code may raise anything
            if error is not None:
                failure.__cause__ = error
            error = failure
    if error is not None and issubclass(type(error), EngineError):  # an instance may claim any class
        # Divergence and its like write no event: what this pump gathered is dropped.
        run.outgoing.drop()
        return Failed(encode_error(error))
    unfinished = _abandon_rest(run, returned=error is None)
    if error is not None:
        return _failed(run, error, unfinished)
    return Completed(output)


def stuck(run: RunView) -> Failed:
    """The outcome of a run that can never go on."""
    return Failed(
        encode_error(
            PgflowError(
                f"{run.label} waits for something that no step will bring about: no activity runs, no deadline "
                "and no signal is awaited, and its code has not returned. Look for an event, lock or future that "
                "nobody sets, or for a task that waits for itself."
            )
        )
    )


def engine_failure(run: RunView, error: BaseException) -> EngineError:
    """The error of a run on which the engine's own code has failed."""
    failure = EngineError(
        f"{run.label} was stopped by an error of pgflow's own code: {described(error)}. Nothing of this moment "
        "was written. Report it with the traceback; retry the workflow once the cause is mended.",
        expected="the run comes to rest",
        found=class_name(error),
    )
    failure.__cause__ = error
    return failure


def _abandon_rest(run: RunView, returned: bool = False) -> list[StepView]:
    """The body has returned or raised: what it left unfinished is cancelled, recorded as abandoned, and returned."""
    unfinished = run.scope.all_unfinished()
    found = unawaited(run.scope)
    run.scope.close_below()
    run.scope.abandon_rows(unfinished, run.order.next_seq() if unfinished else None)
    for step in unfinished:
        step.drop()
    if not run.loop.at_rest:
        with stage():
            run.loop.drain()  # the tasks that the body left behind see their cancellation
    if found:
        settle_unawaited(run.scope, found, returned)
    return unfinished


def _timed_out(run: RunView, unfinished: list[StepView]) -> Failed:
    """The failure of a run that its deadline has cancelled. A retry runs again what that cancelled, unless the code has
    compensated.
    """
    assert run.first_cancel is not None
    after, locations = run.claimed.timed_out, run.first_cancel.locations
    error = encode_timeout(f"it had not ended within {after:.15g} s, and was cancelled", after or 0.0)
    if run.calls > run.first_cancel.calls:
        return Failed(error, (), min(locations, default=None))
    again = {step.location for step in [*unfinished, *(run.aftermath or ())]}
    return Failed(error, tuple(sorted(again.union(locations))))


def _failed(run: RunView, error: BaseException, unfinished: list[StepView]) -> Failed:
    """The failure, with the steps that a retry runs again."""
    steps, calls = steps_of(error)
    if calls is not None and run.calls > calls:
        return Failed(encode_error(error), (), steps[0].location)
    undone = [*steps, *abandoned_by(error), *unfinished, *(run.aftermath or ())]
    again = {step.location for step in undone}
    return Failed(encode_error(error), tuple(sorted(again)))
