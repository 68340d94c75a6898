"""What both clients check and prepare before they send anything: filters of lists, many inputs, limits. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypedDict
from uuid import UUID

from pgflow.codec import encode
from pgflow.definitions.calls import encode_named, workflow_name
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.options import uuid_of
from pgflow.definitions.packets import signal_name
from pgflow.definitions.retry import seconds
from pgflow.definitions.tags import tags_text
from pgflow.history import location
from pgflow.model.commands import Dispatch
from pgflow.model.info import AuditEntry, Count, DeadSignal, Page
from pgflow.model.moments import in_utc
from pgflow.store.database.query import Query
from pgflow.store.queries import dead_signals, inspection, listing
from pgflow.store.queries.listing import Asked

STATUSES = ("pending", "running", "sleeping", "paused", "completed", "failed", "cancelled")


OPERATIONS = (
    "cancel",
    "pause",
    "resume",
    "retry",
    "rewind",
    "terminate",
    "update",
    "wake",
    "fork",
    "prune",
    "redeliver",
    "drop",
    "retention",
)
"""What an operator may have done."""


class Filter:
    """What workflows are asked for, checked.

    Args:
        limit: how many, at most.
        after: a page's cursor, or the id of its last workflow.
        filters: those of `Client.list`, None where one is not given.

    Raises:
        ValueError: a status that there is not, tags that are not flat, a limit below 1, an id or a cursor that is
            none, a moment without a time zone, a range that ends before it begins, a text that is none.
    """

    def __init__(
        self,
        *,
        limit: int,
        name: str | None = None,
        status: str | Iterable[str] | None = None,
        tags: Mapping[str, Any] | None = None,
        queue: str | None = None,
        parent_id: UUID | str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        ended_after: datetime | None = None,
        ended_before: datetime | None = None,
        error_type: str | None = None,
        waiting_for: type | str | None = None,
        after: UUID | str | None = None,
    ) -> None:
        if type(limit) is not int or not 1 <= limit < 2**31:
            raise ValueError(f"limit={limit!r}: expected a whole number, at least 1")
        if isinstance(waiting_for, type):
            waiting_for = signal_name(waiting_for, "list")
        _check_texts(name=name, queue=queue, error_type=error_type, waiting_for=waiting_for)
        wanted = None if tags is None else tags_text(tags)
        self._asked = Asked(
            name=name,
            statuses=_statuses(status),
            tags=None if wanted == "{}" else wanted,
            queue=queue,
            parent_id=None if parent_id is None else uuid_of(parent_id),
            created_after=_moment(created_after, "created_after"),
            created_before=_moment(created_before, "created_before"),
            ended_after=_moment(ended_after, "ended_after"),
            ended_before=_moment(ended_before, "ended_before"),
            error_type=error_type,
            waiting_for=waiting_for,
            after=None if after is None else _place(after),
        )
        for what in ("created", "ended"):
            begin, end = getattr(self._asked, f"{what}_after"), getattr(self._asked, f"{what}_before")
            if begin is not None and end is not None and begin >= end:
                raise ValueError(
                    f"{what}_after={begin}, {what}_before={end}: expected a range that ends after it begins"
                )
        self._limit = limit

    @property
    def last(self) -> UUID | None:
        """The workflow after which the list is to go on, where only its id is given."""
        at, id = self._asked.after or (None, None)
        return id if at is None else None

    def query(self, schema: str) -> Query[Page]:
        """The statement that lists them."""
        return listing.find(schema, self._asked, self._limit)

    def count(self, schema: str) -> Query[Count]:
        """The statement that counts them."""
        return listing.count(schema, self._asked, self._limit)


def _statuses(given: str | Iterable[str] | None) -> list[str] | None:
    """The statuses, each once; None: any."""
    if given is None:
        return None
    expected = f"expected one of {', '.join(STATUSES)}, or several of them"
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"status={given!r}: {expected}")
    found = [given] if isinstance(given, str) else list(given)
    if not found or any(one not in STATUSES for one in found):
        raise ValueError(f"status={given if isinstance(given, str) else found!r}: {expected}")
    return None if set(found) == set(STATUSES) else [status for status in STATUSES if status in found]


def _moment(given: datetime | None, what: str) -> datetime | None:
    return None if given is None else in_utc(given, what)


def _place(after: UUID | str) -> tuple[datetime | None, UUID]:
    """A place in a list: a page's cursor, or the id of its last workflow."""
    try:
        if isinstance(after, str) and "/" in after:
            moment, _, id = after.partition("/")
            return in_utc(datetime.fromisoformat(moment), "after"), UUID(id)
        return None, uuid_of(after)
    except ValueError:
        raise ValueError(f"after={after!r}: expected the cursor of a page, or a workflow's UUID") from None


BULK = 10_000
"""The most workflows that one call operates, unless it says otherwise."""

_LIVE = ("pending", "running", "sleeping", "paused")
_MEANT = {"cancel": _LIVE, "pause": _LIVE[:3], "resume": ("paused",), "retry": ("failed",), "terminate": _LIVE}
"""The statuses of the workflows that are meant where none is named."""


class BulkFilters(TypedDict, total=False):
    """The filters of `Client.list`, as methods that operate many workflows take them; None: not given."""

    name: str | None
    status: str | Iterable[str] | None
    tags: Mapping[str, Any] | None
    queue: str | None
    parent_id: UUID | str | None
    created_after: datetime | None
    created_before: datetime | None
    ended_after: datetime | None
    ended_before: datetime | None
    error_type: str | None
    waiting_for: type | str | None


class BulkFilter:
    """Which workflows are to be operated together, checked.

    Args:
        operation: what is to be done.
        ids: which; None: those that the filters name.
        limit: how many, at most.
        filters: those of `Client.list`.

    Raises:
        ValueError: neither ids nor a filter is given, or both; what `Filter` refuses; a limit below 1.
        TypeError: a filter that there is not.
    """

    def __init__(self, operation: str, ids: Iterable[UUID | str] | None, limit: int, filters: BulkFilters) -> None:
        unknown = filters.keys() - BulkFilters.__annotations__.keys()
        if unknown:
            raise TypeError(f"{operation}_many() got an unexpected keyword argument {min(unknown)!r}")
        self._given: dict[str, Any] = {
            key: value for key, value in filters.items() if value is not None and value != {}
        }
        if ids is None and not self._given:
            known = ", ".join(BulkFilters.__annotations__)
            raise ValueError(
                f"{operation}_many: expected ids, or a filter ({known}); found neither, and all workflows can hardly "
                "be meant"
            )
        if ids is not None and self._given:
            raise ValueError(f"{operation}_many: expected ids or a filter, found ids and {', '.join(self._given)}")
        if isinstance(ids, str | bytes):
            raise ValueError(f"{operation}_many: ids={ids!r}: expected several ids, such as [{ids!r}]")
        if type(limit) is not int or limit < 1:
            raise ValueError(f"{operation}_many: limit={limit!r}: expected a whole number, at least 1")
        self.operation = operation
        self.limit = limit
        self.ids = [] if ids is None else list(dict.fromkeys([uuid_of(id) for id in ids]))
        self._filter(limit=limit)  # refuses what is wrong of it
        status = self._given.pop("status", None)
        found = _MEANT[operation] if status is None else tuple(_statuses(status) or STATUSES)
        self.statuses = () if ids is not None else found
        """The statuses to look for, one after the other; none where ids are given."""

    def page(self, schema: str, status: str, limit: int, after: str | None) -> Query[Page]:
        """The statement that lists some of them: those of a status, after a page's cursor."""
        return self._filter(status=status, limit=limit, after=after).query(schema)

    def _filter(self, **asked: Any) -> Filter:
        return Filter(**{**self._given, **asked})


ENDED = ("completed", "failed", "cancelled")
"""The statuses of what can be removed."""


class PruneFilter:
    """Which workflows are to be removed, checked.

    Args:
        older_than: how long ago they ended, at least.
        limit: how many, at most; None: all.

    Raises:
        ValueError: a negative age, a status that is not final, a limit below 1, and what `Filter` refuses.
    """

    def __init__(
        self,
        older_than: timedelta | float,
        name: str | None,
        status: str | Iterable[str] | None,
        tags: Mapping[str, Any] | None,
        queue: str | None,
        parent_id: UUID | str | None,
        limit: int | None,
    ) -> None:
        age = timedelta(seconds=seconds(older_than, "older_than"))
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ValueError(f"limit={limit!r}: expected a whole number, at least 1, or None")
        given = ("completed", "cancelled") if status is None else (status,) if isinstance(status, str) else (*status,)
        if not given or not set(given) <= set(ENDED):
            raise ValueError(f"status={status!r}: expected one or several of {', '.join(ENDED)}")
        Filter(name=name, tags=tags, queue=queue, parent_id=parent_id, limit=1)  # refuses what is wrong of it
        self.statuses = tuple(dict.fromkeys(given))
        self.asked = {
            "older_than": age,
            "statuses": list(self.statuses),
            "name": name,
            "queue": queue,
            "tags": tags_text(tags) if tags else None,
            "parent_id": None if parent_id is None else uuid_of(parent_id),
        }


class DeadFilter:
    """What a list of signals that were set aside is asked for, checked.

    Raises:
        ValueError: a limit below 0, an id that is none.
    """

    def __init__(self, workflow_id: UUID | str | None, name: str | None, limit: int, after: UUID | str | None) -> None:
        _check_limit(limit)
        _check_texts(name=name)
        self._workflow_id = None if workflow_id is None else uuid_of(workflow_id)
        self._after = None if after is None else uuid_of(after)
        self._name = name
        self._limit = limit

    def query(self, schema: str) -> Query[list[DeadSignal]]:
        """The statement that lists them."""
        return dead_signals.find(
            schema, workflow_id=self._workflow_id, name=self._name, after=self._after, limit=self._limit
        )


class AuditFilter:
    """What a list of operators' actions is asked for, checked.

    Raises:
        ValueError: an id that is none, an operation that there is not, a moment without a time zone, a limit below 0.
    """

    def __init__(
        self,
        workflow_id: UUID | str | None,
        actor: str | None,
        operation: str | None,
        since: datetime | None,
        limit: int,
        after: int | None,
    ) -> None:
        _check_limit(limit)
        _check_texts(actor=actor)
        if operation is not None and operation not in OPERATIONS:
            raise ValueError(f"operation={operation!r}: expected one of {', '.join(OPERATIONS)}")
        if after is not None and (isinstance(after, bool) or not isinstance(after, int) or not 0 <= after < 2**63):
            raise ValueError(f"after={after!r}: expected the id of the last entry of a list")
        self._asked: dict[str, Any] = {
            "workflow_id": None if workflow_id is None else uuid_of(workflow_id),
            "actor": actor,
            "operation": operation,
            "since": None if since is None else in_utc(since, "since"),
            "after": after,
        }
        self._limit = limit

    def query(self, schema: str) -> Query[list[AuditEntry]]:
        """The statement that lists them."""
        return inspection.audit(schema, limit=self._limit, **self._asked)


def checked_limit(limit: int) -> int:
    """The limit of a list, if it is one.

    Raises:
        ValueError: it is not.
    """
    _check_limit(limit)
    return limit


def _check_limit(limit: int) -> None:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**31:
        raise ValueError(f"limit={limit!r}: expected a whole number, 0 or more")


def _check_texts(**texts: str | None) -> None:
    for what, text in texts.items():
        if text is not None and (not isinstance(text, str) or "\0" in text):
            raise ValueError(f"{what}={text!r}: expected a text")


def fields_of(body: Any, limit: int) -> str:
    """The fields of a signal, given as an instance of its class or as a mapping, as JSON.

    Raises:
        TypeError: it is neither.
        SerializationError: it cannot be stored, or is too large.
    """
    if isinstance(body, Mapping):
        return encode(dict(body), what="body of the signal", limit=limit)
    return encode(body, type(body), what=f'signal "{signal_name(type(body), "redeliver")}"', limit=limit)


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
    """The requests in parts for one statement each, bounded in number and in characters of input."""
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


CHILDREN = ("leave", "cancel")
"""What may become of children that were started in a stretch of history that is undone."""


def children_of(what: str) -> str:
    """What becomes of such children, checked.

    Raises:
        ValueError: it is neither.
    """
    if what not in CHILDREN:
        raise ValueError(f'children={what!r}: expected "leave" or "cancel"')
    return what


def location_of(text: str) -> str:
    """A location, given as displayed ({2, 10}) or as stored (2,a10), in stored form.

    Raises:
        ValueError: it is none.
    """
    try:
        if not isinstance(text, str):
            raise ValueError(text)
        found = (
            location.encode(location.parse_displayed(text)) if "{" in text else location.encode(location.decode(text))
        )
    except ValueError:
        found = ""
    if not found:
        raise ValueError(
            f"{text!r} is no location: expected one as displayed, such as {{2, 10}}, or as stored, such as 2,a10"
        )
    return found


def seconds_of(timeout: timedelta | float) -> float:
    """A timeout in seconds."""
    return seconds(timeout, "timeout")


def limit_of(connections: int, payload_limit: int, call_timeout: timedelta | float | None) -> float | None:
    """How many seconds a client's call may take; None: any. The client's other settings are checked here as well.

    Raises:
        ValueError: a number below 1, a duration that is none.
    """
    if connections < 1:
        raise ValueError(f"connections={connections!r}: expected at least 1")
    if payload_limit < 1:
        raise ValueError(f"payload_limit={payload_limit!r}: expected at least 1 byte")
    limit = None if call_timeout is None else seconds(call_timeout, "call_timeout")
    if limit == 0:
        raise ValueError("call_timeout=0: expected a duration above 0, or None")
    return limit
