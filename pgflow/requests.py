"""What both clients make of what they are given: checked options, encoded inputs, decoded outcomes. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from pgflow.codec import decode_error, encode
from pgflow.definitions import Workflow, signal_name
from pgflow.errors import PgflowError, WorkflowCancelled, WorkflowFailed, WorkflowNotFound
from pgflow.history import location
from pgflow.info import WorkflowInfo
from pgflow.retry import seconds
from pgflow.store import inspection
from pgflow.store.dispatching import Dispatch, Dispatched, Outcome
from pgflow.store.query import Query
from pgflow.store.signalling import Sending, Sent
from pgflow.tags import tags_text

STATUSES = ("pending", "running", "sleeping", "paused", "completed", "failed", "cancelled")


class Options:
    """The options of a dispatch, checked.

    Raises:
        ValueError: tags that are no flat object, a naive `run_at`, a priority or queue out of range.
    """

    def __init__(
        self,
        tags: Mapping[str, Any] | None = None,
        unique: bool = False,
        run_at: datetime | None = None,
        priority: int = 0,
        queue: str = "default",
    ) -> None:
        if run_at is not None:
            _check_moment(run_at)
        if isinstance(priority, bool) or not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
            raise ValueError(f"priority={priority!r}: expected a whole number of 32 bits")
        if not isinstance(queue, str) or not queue or len(queue) > 200 or not queue.isprintable():
            raise ValueError(f"queue={queue!r}: expected a name of 1 to 200 printable characters")
        self.tags_text = tags_text(tags)
        self.unique = bool(unique)
        self.run_at = run_at
        self.priority = priority
        self.queue = queue

    def dispatch(self, id: UUID, name: str, input: str) -> Dispatch:
        """The request for one workflow."""
        return Dispatch(id, name, input, self.tags_text, self.unique, self.run_at, self.priority, self.queue)

    def check(self, request: Dispatch, started: Dispatched) -> UUID:
        """The id of what was started, or was there.

        Raises:
            ValueError: the id belongs to a workflow of another name.
            PgflowError: nothing came of it.
        """
        if started.id is None:
            raise PgflowError(
                f'workflow "{request.name}" is started and ended by others all the time; nothing was started. Try again.'
            )
        if started.name != request.name:
            raise ValueError(
                f'id={started.id}: this id belongs to a workflow "{started.name}", expected "{request.name}". Nothing was '
                "started; choose another id."
            )
        return started.id


class Filter:
    """What a list of workflows is asked for, checked.

    Raises:
        ValueError: a status that there is not, tags that are not flat, a limit below 0, an id that is none.
    """

    def __init__(
        self,
        name: str | None,
        status: str | None,
        tags: Mapping[str, Any] | None,
        limit: int,
        queue: str | None,
        parent_id: UUID | str | None,
        before: UUID | str | None,
    ) -> None:
        if status is not None and status not in STATUSES:
            raise ValueError(f"status={status!r}: expected one of {', '.join(STATUSES)}")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**31:
            raise ValueError(f"limit={limit!r}: expected a whole number, 0 or more")
        for what, text in (("name", name), ("queue", queue)):
            if text is not None and (not isinstance(text, str) or "\0" in text):
                raise ValueError(f"{what}={text!r}: expected a text")
        self._asked = {
            "name": name,
            "status": status,
            "tags": None if tags is None else tags_text(tags),
            "queue": queue,
            "parent_id": None if parent_id is None else uuid_of(parent_id),
            "before": None if before is None else uuid_of(before),
        }
        self._limit = limit

    def query(self, schema: str) -> Query[list[WorkflowInfo]]:
        """The statement that lists them."""
        return inspection.find(schema, limit=self._limit, **self._asked)  # type: ignore[arg-type]


def _check_moment(run_at: datetime) -> None:
    if not isinstance(run_at, datetime) or run_at.utcoffset() is None:
        raise ValueError(
            f"run_at={run_at!r}: expected a datetime with a time zone, e.g. datetime.now(timezone.utc) + timedelta(hours=1)"
        )
    try:
        run_at.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"run_at={run_at!r}: out of the range of time in UTC") from None


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
    if args:
        raise TypeError(
            f'workflow "{name}" is given by its name, so its parameters are not known here: give the arguments by name'
        )
    return name, encode(kwargs, what=f'arguments of workflow "{name}"', limit=limit)


def workflow_name(workflow: Any) -> str:
    """The name of a workflow that is given as itself or by its name.

    Raises:
        TypeError: it is neither.
        ValueError: the name cannot be one.
    """
    if isinstance(workflow, Workflow):
        return workflow.name
    if not isinstance(workflow, str):
        raise TypeError(f"expected a workflow (made by @pgflow.workflow) or its name, found {workflow!r}")
    if not workflow or len(workflow) > 200 or not workflow.isprintable():
        raise ValueError(f"workflow name {workflow!r}: expected 1 to 200 printable characters")
    return workflow


def inputs_of(
    workflow: Workflow[Any, Any] | str, arguments: Iterable[Mapping[str, Any]], limit: int
) -> list[tuple[str, str]]:
    """The name and the input of each of many workflows.

    Raises:
        TypeError: the arguments do not fit, or are no mappings.
        SerializationError: an argument cannot be stored, or is too large.
    """
    expected = 'expected a sequence of mappings of arguments by name, e.g. [{"order": 7}, {"order": 8}]'
    if isinstance(arguments, Mapping | str | bytes) or not isinstance(arguments, Iterable):
        raise TypeError(f"{expected}; found {arguments!r:.100}")
    inputs = []
    for number, given in enumerate(arguments):
        if not isinstance(given, Mapping):
            raise TypeError(f"{expected}; found at {number}: {given!r:.100}")
        inputs.append(input_of(workflow, (), dict(given), limit))
    return inputs


def sending_of(
    id: UUID,
    body: Any,
    to: UUID | str | None,
    workflow: Workflow[Any, Any] | str | None,
    tags: Mapping[str, Any] | None,
    limit: int,
    sender: UUID | None = None,
) -> Sending:
    """A signal, checked and encoded.

    Raises:
        TypeError: the body is no signal, or it is said neither or both to whom it goes.
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
        return Sending(id, uuid_of(to), None, None, name, text, sender)
    return Sending(id, None, workflow_name(workflow), tags_text(tags), name, text, sender)


def sent_of(sending: Sending, sent: Sent, missing_ok: bool) -> UUID | None:
    """The id of a signal that was sent; None when nobody receives it and that is well.

    Raises:
        WorkflowNotFound: nobody receives it.
    """
    if sent.accepted:
        return sending.id
    if missing_ok:
        return None
    if sent.final is not None:
        raise WorkflowNotFound(
            f'signal "{sending.name}": the workflow {sent.receiver} is {sent.final}, nothing was sent'
        )
    if sending.workflow_id is not None:
        raise WorkflowNotFound(
            f'signal "{sending.name}": there is no workflow {sending.workflow_id}, nothing was sent'
        )
    raise WorkflowNotFound(
        f'signal "{sending.name}": no live workflow "{sending.workflow_name}" has the tags {sending.tags}, nothing was sent'
    )


def parts_of(requests: list[Dispatch], count: int, size: int) -> Iterator[list[Dispatch]]:
    """The requests in parts for one statement each: so many, with so many characters of input, at most."""
    part: list[Dispatch] = []
    held = 0
    for request in requests:
        if part and (len(part) >= count or held + len(request.input) > size):
            yield part
            part, held = [], 0
        part.append(request)
        held += len(request.input)
    if part:
        yield part


def output_of(outcome: Outcome, workflow: Workflow[Any, Any] | None) -> tuple[Any] | None:
    """The output in a tuple of one; None while the workflow goes on.

    Raises:
        WorkflowFailed: it failed.
        WorkflowCancelled: it was cancelled.
    """
    if outcome.status == "completed":
        text = outcome.output or "null"
        return (json.loads(text) if workflow is None else workflow.decode_result(text),)
    if outcome.status == "failed":
        told = decode_error(outcome.error or "{}")
        kind, message = str(told.get("type")), str(told.get("message"))
        raise WorkflowFailed(
            f'workflow "{outcome.name}" {outcome.id} failed: {kind}: {message}',
            workflow_id=outcome.id,
            error_type=kind,
            error_message=message,
        )
    if outcome.status == "cancelled":
        raise WorkflowCancelled(
            f'workflow "{outcome.name}" {outcome.id} was cancelled', workflow_id=outcome.id
        )
    return None


def location_of(text: str) -> str:
    """A location, given as displayed ({2, 10}) or as stored (2,a10), in stored form.

    Raises:
        ValueError: it is none.
    """
    try:
        if not isinstance(text, str):
            raise ValueError(text)
        found = location.encode(location.parse_displayed(text)) if "{" in text else location.encode(location.decode(text))
    except ValueError:
        found = ""
    if not found:
        raise ValueError(f"{text!r} is no location: expected one as displayed, such as {{2, 10}}, or as stored, such as 2,a10")
    return found


def uuid_of(id: UUID | str) -> UUID:
    """An id as a UUID.

    Raises:
        ValueError: it is none.
    """
    if isinstance(id, UUID):
        return id
    if isinstance(id, str) and re.fullmatch(r"[0-9a-fA-F-]{32,36}", id):
        return UUID(id)
    raise ValueError(f"id={id!r}: expected a UUID")


def seconds_of(timeout: timedelta | float) -> float:
    """A timeout in seconds."""
    return seconds(timeout, "timeout")
