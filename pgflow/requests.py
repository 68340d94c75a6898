"""What both clients make of what they are given beside commands: what a list is asked for, many inputs. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from pgflow.commands import Dispatch, encode_named, workflow_name
from pgflow.definitions import Workflow
from pgflow.history import location
from pgflow.info import WorkflowInfo
from pgflow.options import uuid_of
from pgflow.retry import seconds
from pgflow.store import inspection
from pgflow.store.query import Query
from pgflow.tags import tags_text

STATUSES = ("pending", "running", "sleeping", "paused", "completed", "failed", "cancelled")


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


def inputs_of(
    workflow: Workflow[Any, Any] | str, arguments: Iterable[Mapping[str, Any]], limit: int
) -> tuple[str, list[str]]:
    """The name of many workflows, and the input of each.

    Raises:
        TypeError: the arguments do not fit, or are no mappings.
        SerializationError: an argument cannot be stored, or is too large.
    """
    expected = 'expected a sequence of mappings of arguments by name, e.g. [{"order": 7}, {"order": 8}]'
    if isinstance(arguments, Mapping | str | bytes) or not isinstance(arguments, Iterable):
        raise TypeError(f"{expected}; found {arguments!r:.100}")
    name = workflow_name(workflow)
    encode = workflow.encode_named if isinstance(workflow, Workflow) else partial(encode_named, name, ())
    inputs = []
    for number, given in enumerate(arguments):
        if type(given) is not dict and not isinstance(given, Mapping):
            raise TypeError(f"{expected}; found at {number}: {given!r:.100}")
        inputs.append(encode(dict(given), limit))
    return name, inputs


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


def seconds_of(timeout: timedelta | float) -> float:
    """A timeout in seconds."""
    return seconds(timeout, "timeout")
