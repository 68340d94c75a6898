"""A branch: a closure, or another workflow's body, that runs over a stretch of history of its own.

The branch's row only marks the place. No result is recorded: replay runs the closure again over its recorded steps.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pgflow.execution.engine.interfaces import ScopeView
from pgflow.execution.engine.scope import Scope
from pgflow.execution.engine.step import Step
from pgflow.history.events import KIND_BRANCH, STATUS_COMPLETED, STATUS_PENDING


class BranchStep(Step):
    """`ctx.branch(closure)` and `ctx.inline(workflow, ...)`.

    Args:
        body: returns the coroutine to run over the branch's scope.
    """

    kind = KIND_BRANCH
    is_container = True
    __slots__ = ("_body",)

    def __init__(
        self,
        scope: ScopeView,
        name: str,
        version: int,
        body: Callable[[ScopeView], Coroutine[Any, Any, Any]],
    ) -> None:
        self._body = body
        super().__init__(scope, name, version)

    async def run(self) -> Any:
        self.check_not_dropped()
        outer = self.scope
        if self.event is None or self.event.status == STATUS_PENDING:
            outer.record(self, self.row(STATUS_COMPLETED))
        self.finished = True
        scope = Scope(outer.run, outer, self.location, outer.iteration, outer.now, self.covering)
        try:
            value = await scope.run_body(self._body(scope))
            self.check_not_dropped()
            return value
        finally:
            self.settle()
