"""From a claimed workflow to a run: the code over its input and its history."""

from __future__ import annotations

from typing import Any

from pgflow.codec import described
from pgflow.definitions.descriptors import Workflow
from pgflow.errors import SerializationError
from pgflow.execution.context import WorkflowContext
from pgflow.execution.engine.blame import acquit, too_many
from pgflow.execution.engine.run import Host, Run
from pgflow.execution.engine.scope import Scope
from pgflow.model.claimed import Claimed

_TAGS = (dict, type(None))


def execute(claimed: Claimed, workflow: Workflow[Any, Any], host: Host) -> Run:
    """Begin, or go on with, a workflow; `host` pumps the run from here on.

    An input that does not fit the code, or rows that cannot be read, fail the workflow, not the worker.
    """
    unread = ""
    if not (isinstance(claimed.tags, _TAGS) and isinstance(claimed.tags_now, _TAGS)):
        given = (("tags", claimed.tags), ("tags_now", claimed.tags_now))
        unread = ", ".join(name for name, tags in given if not isinstance(tags, _TAGS))
    run: Run | None = None
    if not unread:
        try:
            run = Run(claimed, workflow, host)
        except Exception as error:
            unread = f"history ({described(error)})"
    if run is None:
        claimed.tags, claimed.tags_now, claimed.state, claimed.cancellations = {}, None, None, ()
        claimed.events, claimed.signals = [], []
        run = Run(claimed, workflow, host)
        refusal = SerializationError(
            f"{run.label} holds rows that cannot be read: its {unread}. Were they written by SQL? Mend them, then "
            "retry it."
        )

    if claimed.suspicions:
        acquit(run)
    crashed = too_many(claimed, host.limits.crashes) if claimed.crashes else None

    async def body(scope: Scope) -> Any:
        if unread:
            raise refusal
        if crashed is not None:
            scope.run.end_with(crashed)
        args, kwargs = workflow.decode_arguments(claimed.input)
        return await workflow.fn(WorkflowContext(scope), *args, **kwargs)

    run.start(body)
    return run
