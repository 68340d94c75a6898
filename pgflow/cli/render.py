"""Workflows and their history as tables for people and as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgflow.model.explanation import Explanation
from pgflow.model.info import AuditEntry, DeadSignal, HistoryEvent, WorkerInfo, WorkflowInfo
from pgflow.model.queue_info import QueueInfo

_COLOURS = {
    "pending": "cyan",
    "running": "blue",
    "sleeping": "magenta",
    "paused": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "abandoned": "yellow",
}

WIDTH_OF_FILES = 200
"""Columns of a table that does not go to a terminal."""

_LONGEST = 400
"""Characters of a payload in a cell."""


def document(found: Any, **more: Any) -> str:
    """What was found as indented JSON; times in ISO 8601.

    Args:
        more: what is put beside it, under its names.
    """
    value = _plain(found)
    if more:
        value = {**value, **{name: _plain(each) for name, each in more.items()}}
    return json.dumps(value, indent=2, default=_text)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def workflows(found: Sequence[WorkflowInfo]) -> None:
    """One line for each workflow; long texts fold, so that a narrow terminal hides nothing."""
    table = Table(box=None, pad_edge=False)
    for name, wraps in (("id", False), ("name", True), ("status", False), ("dispatched", False), ("details", True)):
        table.add_column(name, no_wrap=not wraps, overflow="fold")
    for one in found:
        tags = _short(one.tags) if one.tags else Text("")
        awaited = safe("waits for " + ", ".join(one.waiting_for)) if one.waiting_for else Text("")
        details = [_when(one.completed_at, one.wake_at), awaited, tags, _error(one.error)]
        table.add_row(
            str(one.id),
            safe(one.name),
            _status(one.status),
            _time(one.created_at),
            Text("; ").join(part for part in details if part.plain),
        )
    _print(table)


def workflow(found: WorkflowInfo) -> None:
    """Everything about one workflow, one line for each field."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for field in fields(found):
        value = getattr(found, field.name)
        if value is None or value == [] or (field.name == "tags" and not value):
            continue
        cell: Text
        if field.name == "status":
            cell = _status(value)
        elif isinstance(value, datetime):
            cell = _time(value)
        elif field.name == "error":
            cell = Text.assemble(_error(value), "\n", safe(str(value.get("traceback", "")).strip()))
        elif field.name in ("input", "output", "tags"):
            cell = safe(json.dumps(value, indent=2, ensure_ascii=False))
        elif isinstance(value, list):
            cell = safe(", ".join(map(str, value)))
        else:
            cell = safe(str(value))
        table.add_row(Text(field.name, "bold"), cell)
    _print(table)


def explanation(found: Explanation) -> None:
    """Why a workflow waits, one line for each reason, and what it waits for."""
    if found.reasons:
        _print(Text("\n").join([Text("why it is there", "italic"), *map(safe, found.reasons)]))
    if found.pending:
        history(found.pending, title="pending steps")
    for title, rows, columns in (
        ("unread signals", found.mailbox, ("id", "name", "created_at")),
        ("children that have not ended", found.children, ("id", "name", "status")),
    ):
        if rows:
            table = Table(title=title, title_justify="left", box=None, pad_edge=False)
            for column in columns:
                table.add_column(column, no_wrap=column != "name", overflow="fold")
            for one in rows:
                table.add_row(*(_cell(getattr(one, column)) for column in columns))
            _print(table)


def history(found: Sequence[HistoryEvent], title: str | None = None) -> None:
    """One line for each step."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("location", "turn", "kind", "name", "status", "attempts", "when", "result"):
        table.add_column(name, no_wrap=name in ("status", "when"), overflow="fold")
    for one in found:
        table.add_row(
            Text(one.location, "dim" if one.forgotten else ""),
            str(one.iteration),
            one.kind + (f" v{one.version}" if one.version > 1 else ""),
            safe(one.name),
            Text.assemble(_status(one.status), f" (rewind {one.rewind})" if one.rewind else ""),
            str(one.attempts or ""),
            _when(one.completed_at, one.wake_at),
            _error(one.error) if one.error is not None else _short(one.output),
        )
    _print(table)


def dead_signals(found: Sequence[DeadSignal]) -> None:
    """One line for each signal."""
    table = Table(box=None, pad_edge=False)
    for name, wraps in (
        ("id", False),
        ("name", True),
        ("to", True),
        ("sent", False),
        ("body", True),
        ("problem", True),
    ):
        table.add_column(name, no_wrap=not wraps, overflow="fold")
    for one in found:
        receiver = Text(" ").join([safe(one.workflow_name or "?"), Text(str(one.workflow_id))])
        table.add_row(
            str(one.id), safe(one.name), receiver, _time(one.created_at), _short(one.body), _bounded(one.problem)
        )
    _print(table)


def audit(found: Sequence[AuditEntry], title: str | None = None) -> None:
    """One line for each operation."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name, wraps in (
        ("number", False),
        ("at", False),
        ("actor", True),
        ("operation", False),
        ("on", True),
        ("reason", True),
    ):
        table.add_column(name, no_wrap=not wraps, overflow="fold")
    for one in found:
        who = one.actor if one.actor == one.role else f"{one.actor} (as {one.role})"
        what = " ".join(str(each) for each in (one.workflow_id, one.subject and f"signal {one.subject}") if each)
        why = Text("; ").join(part for part in (_bounded(one.reason or ""), _short(one.details)) if part.plain)
        table.add_row(str(one.id), _time(one.at), safe(who), safe(one.operation), safe(what), why)
    _print(table)


def queues(found: Sequence[QueueInfo]) -> None:
    """One line for each queue, and below it one for each name of workflows that wait in it."""
    table = Table(box=None, pad_edge=False)
    for name in ("queue", "workers", "workflow", "due", "oldest due since", "next due"):
        table.add_column(name, no_wrap=name not in ("queue", "workflow"), overflow="fold")
    for one in found:
        workers = Text(str(one.workers), "" if one.workers or not one.due else "red")
        due = Text(f"{one.due}{'+' if one.more else ''}")
        table.add_row(safe(one.name), workers, Text(""), due, _time(one.oldest_due_at), _time(one.next_at))
        for work in one.work:
            cells = Text(str(work.due)), _time(work.oldest_due_at), _time(work.next_at)
            table.add_row(Text(""), Text(""), safe(work.workflow), *cells)
    _print(table)


def workers(found: Sequence[WorkerInfo]) -> None:
    """One line for each worker."""
    table = Table(box=None, pad_edge=False)
    for name, wraps in (
        ("id", False),
        ("build", True),
        ("queues", True),
        ("holds", False),
        ("heartbeat", False),
        ("started", False),
        ("process", True),
        ("pgflow", False),
    ):
        table.add_column(name, no_wrap=not wraps, overflow="fold")
    for one in found:
        table.add_row(
            str(one.id),
            safe(one.build or ""),
            safe(", ".join(one.queues)),
            f"{one.held}" if one.concurrency is None else f"{one.held} of {one.concurrency}",
            Text(
                f"{max(0.0, one.heartbeat_age):.0f} s ago" + ("" if one.alive else ", lease over"),
                "" if one.alive else "red",
            ),
            _time(one.started_at),
            safe(f"{one.pid} on {one.host}"),
            safe(one.version),
        )
    _print(table)


def safe(text: str) -> Text:
    """A text from outside: markup is not interpreted, and characters that control a terminal are shown as escapes."""
    return Text("".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text))


def _cell(value: Any) -> Text:
    return _time(value) if isinstance(value, datetime) else safe(str(value))


def _status(status: str) -> Text:
    return Text(status, _COLOURS.get(status, ""))


def _time(moment: datetime | None) -> Text:
    return Text("" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"))


def _when(ended: datetime | None, wakes: datetime | None) -> Text:
    if ended is not None:
        return Text.assemble("ended ", _time(ended))
    return Text("") if wakes is None else Text.assemble("wakes ", _time(wakes))


def _error(error: dict[str, Any] | None) -> Text:
    if error is None:
        return Text("")
    return _bounded(f"{error.get('type')}: {error.get('message')}")


def _short(value: Any) -> Text:
    return Text("") if value is None else _bounded(json.dumps(value, ensure_ascii=False))


def _bounded(text: str) -> Text:
    return safe(text if len(text) <= _LONGEST else text[:_LONGEST] + " ...")


def _print(table: Table | Text) -> None:
    width = None if sys.stdout.isatty() else WIDTH_OF_FILES
    Console(width=width, markup=False, highlight=False, emoji=False).print(table)
