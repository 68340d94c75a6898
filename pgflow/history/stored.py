"""A workflow's stored history, and the JSON document in which it is exported.

The document is made to be kept beside a test and read in a diff: it has payloads as JSON values. A payload whose text
would not come back unchanged from a value (written by SQL with other spaces, say) is there as text under `<name>_text`
instead, so that a replay reads exactly what the database holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from pgflow.codec.unreadable import UnreadableText
from pgflow.history.events import Event

FORMAT = 1
"""Grows when documents can no longer be read like those before."""

_PAYLOADS = frozenset({"input", "output", "error", "turn_state", "loop_state"})
_MOMENTS = frozenset({"at", "wake_at", "turn_now"})
_UNSAID = {"iteration": 0, "version": 1, "name": "", "attempts": 0}
_EXPECTED = "expected a JSON document as `pgflow workflow export` and `client.export` write it"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """One workflow with its active history. Payloads are JSON text.

    Args:
        now: the database's time when it was read.
        events: active history, ordered by stored location.
        cancellations: places in the order of completion at which requests to cancel were delivered.

    Example:
        history = StoredHistory.from_json(Path("history.json").read_text())
    """

    id: UUID
    name: str
    status: str
    input: str
    tags: dict[str, Any]
    seed: UUID
    created_at: datetime
    parent_id: UUID | None
    output: str | None
    error: str | None
    now: datetime
    events: list[Event]
    cancellations: tuple[int, ...] = ()

    def to_json(self) -> str:
        """The document, indented for people."""
        workflow: dict[str, Any] = {
            "id": str(self.id),
            "name": self.name,
            "status": self.status,
            **({"tags_text": str(self.tags)} if isinstance(self.tags, UnreadableText) else {"tags": self.tags}),
            "seed": str(self.seed),
            "created_at": self.created_at.isoformat(),
            "now": self.now.isoformat(),
        }
        if self.parent_id is not None:
            workflow["parent_id"] = str(self.parent_id)
        if self.cancellations:
            workflow["cancellations"] = list(self.cancellations)
        for name in ("input", "output", "error"):
            _put(workflow, name, getattr(self, name))
        events = [_event_document(event) for event in self.events]
        document = {"pgflow_history": FORMAT, "workflow": workflow, "events": events}
        return json.dumps(document, indent=2, ensure_ascii=False)

    @staticmethod
    def from_json(document: str | bytes | Mapping[str, Any]) -> StoredHistory:
        """The history that a document holds.

        Raises:
            ValueError: it is no such document, or one of a later format.
        """
        try:
            given = json.loads(document) if isinstance(document, str | bytes) else document
        except (ValueError, RecursionError) as error:
            raise ValueError(f"this is no history: {_EXPECTED}; found no JSON: {error}") from error
        found = given.get("pgflow_history") if isinstance(given, Mapping) else None
        if found != FORMAT:
            what = "a document without a format" if found is None else f"format {found!r}"
            raise ValueError(f"this is no history: {_EXPECTED}, of format {FORMAT}; found {what}")
        try:
            return _read(given["workflow"], given["events"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"this history is damaged: {_EXPECTED}; found {error!r}") from error


def _event_document(event: Event) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in event._asdict().items():
        if name in _PAYLOADS:
            _put(document, name, value)
        elif name in _MOMENTS:
            if value is not None:
                document[name] = value.isoformat()
        elif value is not None:
            document[name] = value
    return document


def _put(document: dict[str, Any], name: str, text: str | None) -> None:
    if text is None:
        return
    try:
        value = json.loads(text)
        unchanged = _dumps(value) == text
    except (ValueError, RecursionError):
        unchanged = False  # more digits or brackets than Python reads
    if unchanged:
        document[name] = value
    else:
        document[f"{name}_text"] = text


def _payload(document: Mapping[str, Any], name: str) -> str | None:
    if f"{name}_text" in document:
        text = document[f"{name}_text"]
        if not isinstance(text, str):
            raise TypeError(f"{name}_text is {text!r}")
        return text
    return _dumps(document[name]) if name in document else None


def _moment(document: Mapping[str, Any], name: str) -> datetime | None:
    if document.get(name) is None:
        return None
    moment = datetime.fromisoformat(document[name])
    if moment.utcoffset() is None:
        raise ValueError(f"{name} {document[name]!r} has no time zone")
    return moment


def _needed(document: Mapping[str, Any], name: str) -> datetime:
    moment = _moment(document, name)
    if moment is None:
        raise KeyError(name)
    return moment


def _read_event(document: Mapping[str, Any]) -> Event:
    values: dict[str, Any] = {}
    for name in Event._fields:
        if name in _PAYLOADS:
            values[name] = _payload(document, name)
        elif name in _MOMENTS:
            values[name] = _moment(document, name)
        else:
            values[name] = document.get(name, _UNSAID.get(name))
    if missing := [name for name in ("location", "kind", "status", "at") if values[name] is None]:
        raise KeyError(missing[0])
    return Event(**values)


def _read(workflow: Mapping[str, Any], events: list[Mapping[str, Any]]) -> StoredHistory:
    parent_id = workflow.get("parent_id")
    id = UUID(workflow["id"])
    return StoredHistory(
        id=id,
        name=workflow["name"],
        status=workflow["status"],
        input=_payload(workflow, "input") or "{}",
        tags=cast("dict[str, Any]", UnreadableText(workflow["tags_text"]))
        if "tags_text" in workflow
        else dict(workflow.get("tags", {})),
        seed=UUID(workflow["seed"]) if "seed" in workflow else id,
        created_at=_needed(workflow, "created_at"),
        parent_id=None if parent_id is None else UUID(parent_id),
        output=_payload(workflow, "output"),
        error=_payload(workflow, "error"),
        now=_needed(workflow, "now"),
        events=sorted(map(_read_event, events), key=lambda event: event.location),
        cancellations=tuple(map(int, workflow.get("cancellations", ()))),
    )
