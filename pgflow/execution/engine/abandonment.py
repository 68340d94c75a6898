"""How a body ends that leaves steps unfinished: they are cancelled and recorded, and the end takes a place in the
order.
"""

from __future__ import annotations

import asyncio

from pgflow.execution.engine.interfaces import RunView, ScopeView, StepView
from pgflow.execution.engine.result_order import resolve


async def abandon(scope: ScopeView, steps: list[StepView]) -> None:
    """Cancel what a body leaves unfinished; returns once that is recorded and its turn has come.

    The end takes the place of the last result that nobody awaits any more, or a place of its own if no step has one.
    """
    run: RunView = scope.run
    await _wait_for_advances(steps)
    run.order.place_late(run.place)  # even a result that nobody awaits any more keeps its place
    unrecorded = any(not step.has_ended_row and not step.finished for step in steps)
    for step in steps:
        step.drop()
    future: asyncio.Future[None] = asyncio.Future(loop=run.loop)
    if unrecorded:
        delivery = run.deliver_later(lambda at: resolve(future))
        scope.abandon_rows(steps, delivery.seq, delivery.ahead)
    else:
        last = max(steps, key=lambda step: step.seq or 0)
        if last.seq is None:
            return
        run.order.end_after(last, future)
    await future


async def _wait_for_advances(steps: list[StepView]) -> None:
    """Wait until no loop among `steps` is being advanced."""
    for step in steps:
        idle = getattr(step, "advance_done", None)
        if idle is not None:
            await idle()
