"""Commands: what clients and workflows ask of workflows (start one, signal one, ask how one ended), and the answers.

Commands are checked and encoded here and answers read, in the same way for both sides. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.codec import decode, decode_error, encode
from pgflow.definitions.decorated import not_a_workflow
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.functions import is_name
from pgflow.definitions.options import check_priority, check_queue, deadline_of, uuid_of
from pgflow.definitions.packets import signal_name
from pgflow.definitions.tags import tags_text
from pgflow.errors import (
    PgflowError,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowNotFound,
    WorkflowTerminated,
    WorkflowTimeout,
)
from pgflow.model.commands import Dispatch, Dispatched, Sending, Sent, Standing
from pgflow.model.moments import in_utc


class Options:
    """The options of a dispatch, checked.

    Raises:
        ValueError: tags that are no flat object, a naive `run_at`, a priority or queue out of range, a timeout that is
            no duration above 0.
    """

    def __init__(
        self,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
        timeout: timedelta | float | None = None,
    ) -> None:
        if run_at is not None:
            run_at = in_utc(run_at, "run_at")
        check_priority(priority)
        check_queue(queue)
        self.tags_text = tags_text(tags)
        self.unique = bool(unique)
        self.run_at = run_at
        self.priority = priority
        self.queue = queue
        self.timeout = deadline_of(timeout)

    def dispatch(self, id: UUID, name: str, input: str) -> Dispatch:
        """The request for one workflow."""
        return Dispatch(
            id,
            name,
            input,
            self.tags_text,
            self.unique,
            self.run_at,
            self.priority,
            self.queue,
            timeout=self.timeout,
        )

    def check(self, request: Dispatch, started: Dispatched) -> UUID:
        """The id of the workflow that was started, or existed already.

        Raises:
            ValueError: the id belongs to a workflow of another name.
            PgflowError: nothing came of it.
        """
        if started.id is None:
            raise PgflowError(
                f'workflow "{request.name}" is started and ended by others all the time; nothing was started. Try '
                "again."
            )
        if started.name != request.name:
            raise ValueError(
                f'id={started.id}: this id belongs to a workflow "{started.name}", expected "{request.name}". '
                "Nothing was started; choose another id."
            )
        return started.id


def input_of(
    workflow: Workflow[Any, Any] | str, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int
) -> tuple[str, str]:
    """The name of a workflow and its input as JSON.

    Raises:
        TypeError: the arguments do not fit, or it is neither a workflow nor a name.
        SerializationError: an argument cannot be stored, or is too large.
    """
    name = workflow_name(workflow)
    if isinstance(workflow, Workflow):
        return name, workflow.encode_arguments(args, kwargs, limit)
    return name, encode_named(name, args, kwargs, limit)


def encode_named(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> str:
    """The input, as JSON, of a workflow of which only the name is known.

    Raises:
        TypeError: there are arguments without a name.
        SerializationError: an argument cannot be stored, or is too large.
    """
    if args:
        raise TypeError(
            f'workflow "{name}" is given by its name, so its parameters are not known here: give the arguments by name'
        )
    return encode(kwargs, what=f'arguments of workflow "{name}"', limit=limit, same=False)


def workflow_name(workflow: Any) -> str:
    """The name of a workflow that is given as itself or by its name.

    Raises:
        TypeError: it is neither.
        ValueError: the name cannot be one.
    """
    if isinstance(workflow, Workflow):
        return workflow.name
    if not isinstance(workflow, str):
        raise not_a_workflow(workflow, "workflow")
    if not is_name(workflow):
        raise ValueError(f"workflow name {workflow!r}: expected 1 to 200 printable characters")
    return workflow


def output_of(standing: Standing, workflow: Workflow[Any, Any] | None) -> tuple[Any] | None:
    """The output in a tuple of one; None while the workflow has not ended.

    Raises:
        WorkflowFailed: it failed.
        WorkflowTimeout: it failed by its deadline.
        WorkflowCancelled: it was cancelled.
        WorkflowTerminated: an operator has ended it.
    """
    if standing.status == "completed":
        text = standing.output or "null"
        return (
            decode(text, what=f'output of workflow "{standing.name}"')
            if workflow is None
            else workflow.decode_result(text),
        )
    if standing.status == "failed":
        recorded = decode_error(standing.error or "{}")
        kind, message = str(recorded.get("type")), str(recorded.get("message"))
        # A failure that came from another's deadline has the name alone.
        timed_out = kind == WorkflowTimeout.__name__ and "timeout" in recorded
        raise (WorkflowTimeout if timed_out else WorkflowFailed)(
            f'workflow "{standing.name}" {standing.id} failed: {kind}: {message}',
            workflow_id=standing.id,
            error_type=kind,
            error_message=message,
        )
    if standing.status == "cancelled":
        recorded = decode_error(standing.error or "{}")
        if recorded.get("type") == "WorkflowTerminated":
            message = f'workflow "{standing.name}" {standing.id} was {recorded.get("message")}'
            raise WorkflowTerminated(message, workflow_id=standing.id)
        raise WorkflowCancelled(f'workflow "{standing.name}" {standing.id} was cancelled', workflow_id=standing.id)
    return None


def sending_of(
    id: UUID,
    body: Any,
    to: UUID | str | None,
    workflow: Workflow[Any, Any] | str | None,
    tags: Mapping[str, Any] | None,
    limit: int,
) -> Sending:
    """A signal, checked and encoded.

    Raises:
        TypeError: the body is no signal, or neither or both ways of naming the receiver are used.
        ValueError: an id that is none, tags that are no flat object.
        SerializationError: the body cannot be stored, or is too large.
    """
    name = signal_name(type(body), "signal")
    if (to is None) == (workflow is None):
        raise TypeError(
            f'signal "{name}": expected either to=workflow_id, or workflow=... with tags={{...}}; found '
            f"{'neither' if to is None else 'both'}"
        )
    if to is not None and tags is not None:
        raise TypeError(f'signal "{name}": tags go with workflow=..., not with to=...')
    text = encode(body, type(body), what=f'signal "{name}"', limit=limit)
    if to is not None:
        return Sending(id, uuid_of(to), None, None, name, text)
    return Sending(id, None, workflow_name(workflow), tags_text(tags), name, text)


def sent_of(sending: Sending, sent: Sent, missing_ok: bool) -> UUID | None:
    """The id of a signal that was sent; None if it has no receiver and needs none.

    Raises:
        WorkflowNotFound: nobody receives it.
        ValueError: the id belongs to another signal.
    """
    if sent.other is not None:
        raise ValueError(
            f'id={sending.id}: this id belongs to a signal "{sent.other}" to the workflow {sent.receiver}, expected a '
            f'signal "{sending.name}" to {sending.workflow_id or "one found by its tags"}. Nothing was sent; choose '
            "another id."
        )
    if sent.accepted:
        return sending.id
    if missing_ok:
        return None
    if sent.final is not None:
        raise WorkflowNotFound(
            f'signal "{sending.name}": the workflow {sent.receiver} is {sent.final}, nothing was sent'
        )
    if sending.workflow_id is not None:
        raise WorkflowNotFound(f'signal "{sending.name}": there is no workflow {sending.workflow_id}, nothing was sent')
    raise WorkflowNotFound(
        f'signal "{sending.name}": no live workflow "{sending.workflow_name}" has the tags {sending.tags}, nothing '
        "was sent"
    )
