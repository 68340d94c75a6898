"""From a claimed workflow to a run: the code over its input and its history."""

from __future__ import annotations

from typing import Any

from pgflow.definitions import Workflow
from pgflow.execution.context import WorkflowContext
from pgflow.execution.host import Host
from pgflow.execution.ports import Claimed
from pgflow.execution.run import Run
from pgflow.execution.scope import Scope


def execute(claimed: Claimed, workflow: Workflow[Any, Any], host: Host) -> Run:
    """Begin, or go on with, a workflow; `host` pumps the run from here on.

    An input that does not fit the code is the workflow's failure, not the worker's.
    """

    async def body(scope: Scope) -> Any:
        args, kwargs = workflow.decode_arguments(claimed.input)
        return await workflow.fn(WorkflowContext(scope), *args, **kwargs)

    run = Run(claimed, workflow, host)
    run.start(body)
    return run
