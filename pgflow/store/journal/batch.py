"""One batch of the journal: the writes of many runs, folded and laid out as the columns of one statement.

Pure: no I/O. Speed matters here, since every durable step passes: a row costs the client about a microsecond to lay
out, because each column is joined into one text by C code instead of being converted value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgflow.model.folding import folded
from pgflow.model.outcomes import Cancelled, Completed, Failed, Outcome, Released, Suspended
from pgflow.model.rows import EventRow
from pgflow.model.writes import RunChanges, Write
from pgflow.store.database.arrays import literal

SEPARATOR = "\x1f"
"""Stands between the values of a column. JSON text cannot hold it: control characters are escaped there."""

INNER_SEPARATOR = "\x1e"
"""Stands between the values of a list within a column."""

_STATUS = EventRow._fields.index("status")
_LOCATION = EventRow._fields.index("location")


class UnwritableValue(ValueError):
    """A value that cannot travel to the database at all."""


class RunPart:
    """What one run, at one epoch, has in a batch: its writes in order and the rows that they come to."""

    __slots__ = ("key", "outcome", "rows", "run_changes", "writes")

    def __init__(self, write: Write) -> None:
        self.key = write.run
        self.writes = [write]
        self.rows: Sequence[EventRow] = write.rows
        self.outcome: Outcome | None = write.outcome
        self.run_changes: RunChanges | None = write.run_changes

    def add(self, write: Write) -> None:
        """Fold one more write of the run into this part."""
        self.writes.append(write)
        if write.rows:
            self.rows = [*self.rows, *write.rows]
        if write.outcome is not None:
            self.outcome = write.outcome
        if write.run_changes is not None:
            self.run_changes = (
                write.run_changes if self.run_changes is None else _together(self.run_changes, write.run_changes)
            )

    @property
    def changes(self) -> bool:
        """Whether it changes more than history: what becomes of the run, what is kept with the workflow."""
        run_changes = self.run_changes
        return self.outcome is not None or (
            run_changes is not None
            and (
                run_changes.cancels is not None
                or run_changes.state is not None
                or run_changes.tags is not None
                or run_changes.suspicion != ""
            )
        )

    def fold(self) -> None:
        """Leave one row a location: the last, unless an earlier one had ended."""
        rows = self.rows
        by_location: dict[str, EventRow] = {}
        for row in rows:
            earlier = by_location.get(row.location)
            by_location[row.location] = row if earlier is None else folded(earlier, row) or earlier
        if len(by_location) < len(rows):
            self.rows = list(by_location.values())


def _together(earlier: RunChanges, later: RunChanges) -> RunChanges:
    """The changes besides history of two writes of one run, made one after the other."""
    return RunChanges(
        [*earlier.consumed, *later.consumed],
        [*earlier.aside, *later.aside],
        earlier.state if later.state is None else later.state,
        earlier.tags if later.tags is None else later.tags,
        earlier.cancels if later.cancels is None else later.cancels,
        "lifted" if "lifted" in (earlier.suspicion, later.suspicion) else earlier.suspicion or later.suspicion,
    )


def parts_of(writes: Sequence[Write]) -> list[RunPart]:
    """Group writes by run and epoch, in the order of their first write, and fold the rows of each."""
    parts = {write.run: RunPart(write) for write in writes}
    if len(parts) < len(writes):  # a run with several writes
        parts = {}
        for write in writes:
            part = parts.get(write.run)
            if part is None:
                parts[write.run] = RunPart(write)
            else:
                part.add(write)
    found = list(parts.values())
    for part in found:
        if len(part.rows) > 1:
            part.fold()
    return found


def size_of(write: Write) -> int:
    """About how many bytes the write sends, for bounding a batch."""
    size = 64
    for row in write.rows:
        size += 128
        # Inlined: every step passes here.
        if row.input is not None:
            size += len(row.input)
        if row.output is not None:
            size += len(row.output)
        if row.error is not None:
            size += len(row.error)
        if row.turn_state is not None:
            size += len(row.turn_state)
        if row.loop_state is not None:
            size += len(row.loop_state)
    outcome = write.outcome
    if outcome is not None:
        if isinstance(outcome, Completed):
            size += len(outcome.output)
        elif isinstance(outcome, Failed):
            size += len(outcome.error)
    run_changes = write.run_changes
    if run_changes is not None:
        size += len(run_changes.state or "") + len(run_changes.tags or "") + 64 * len(run_changes.consumed)
        size += sum([64 + len(problem) for _, problem in run_changes.aside])
    return size


def run_parameters(parts: Sequence[RunPart]) -> dict[str, Any]:
    """The parameters that name the runs of a batch, numbered from 1 in this order."""
    return {
        "workflow_ids": "{" + ",".join([part.key[0] for part in parts]) + "}",
        "epochs": "{" + ",".join([str(part.key[1]) for part in parts]) + "}",
    }


def row_parameters(parts: Sequence[RunPart]) -> dict[str, Any] | None:
    """The parameters that carry the rows of a batch by column; None if it has no rows.

    Raises:
        Unwritable: A text holds the character that separates values.
    """
    rows: list[EventRow] = []
    runs: list[int] = []
    for number, part in enumerate(parts, 1):
        count = len(part.rows)
        if count == 1:
            rows.append(part.rows[0])
            runs.append(number)
        elif count:
            rows.extend(part.rows)
            runs.extend([number] * count)
    if not rows:
        return None
    columns = dict(zip(EventRow._fields, zip(*rows, strict=True), strict=True))
    parameters: dict[str, Any] = {"run": _numbers(runs)}
    for name in (
        "location",
        "kind",
        "name",
        "status",
        "input",
        "output",
        "error",
        "turn_state",
        "loop_state",
    ):
        parameters[name] = _texts(columns[name])
    for name in ("iteration", "seq", "version", "attempts", "loop_progress", "turn_seq"):
        parameters[name] = _numbers(columns[name])
    for name in ("wake_at", "turn_now"):
        parameters[name] = _times(columns[name])
    return parameters


def signal_parameters(parts: Sequence[RunPart]) -> dict[str, Any] | None:
    """The parameters that name the signals consumed; None if there are none.

    Raises:
        Unwritable: A text holds the character that separates values.
    """
    taken = [
        (number, id.hex, location)
        for number, part in enumerate(parts, 1)
        if part.run_changes is not None
        for id, location in part.run_changes.consumed
    ]
    if not taken:
        return None
    runs, ids, locations = zip(*taken, strict=True)
    return {
        "consumer": _numbers(runs),
        "consumed": "{" + ",".join(ids) + "}",
        "consumed_at": _texts(locations),
    }


def aside_parameters(parts: Sequence[RunPart]) -> dict[str, Any] | None:
    """The parameters that name the signals set aside, and say why; None if there are none."""
    aside = [
        (number, id, problem)
        for number, part in enumerate(parts, 1)
        if part.run_changes is not None
        for id, problem in part.run_changes.aside
    ]
    if not aside:
        return None
    runs, ids, problems = map(literal, zip(*aside, strict=True))
    return {"aside_run": runs, "aside": ids, "problems": problems}


def outcome_parameters(parts: Sequence[RunPart]) -> dict[str, Any] | None:
    """The parameters that say what becomes of runs and of what is kept with their workflows; None if nothing does.

    Raises:
        Unwritable: A text holds the character that separates values.
    """
    changing = [
        (number, part)
        for number, part in enumerate(parts, 1)
        if (part.outcome is not None or part.run_changes is not None) and part.changes
    ]
    if not changing:
        return None
    words: list[str] = []
    wake_ats: list[datetime | None] = []
    waiting: list[str | None] = []
    mailboxes: list[int] = []
    payloads: list[str | None] = []
    resets: list[str | None] = []
    forks: list[str | None] = []
    flags: list[str] = []
    states: list[str | None] = []
    tags: list[str | None] = []
    for _, part in changing:
        outcome, run_changes = part.outcome, part.run_changes or _NOTHING
        wake_at = names = payload = reset = fork = None
        mailbox = 0
        awaits = False
        if isinstance(outcome, Suspended):
            wake_at, mailbox, awaits = outcome.wake_at, outcome.mailbox, outcome.awaits_children
            names = INNER_SEPARATOR.join(outcome.waiting_for) or None
        elif isinstance(outcome, Released):
            wake_at = outcome.wake_at
        elif isinstance(outcome, Completed):
            payload = outcome.output
        elif isinstance(outcome, Failed):
            payload, fork = outcome.error, outcome.fork_before
            reset = INNER_SEPARATOR.join(outcome.reset) or None
        words.append(_WORDS[type(outcome)])
        wake_ats.append(wake_at)
        waiting.append(names)
        mailboxes.append(mailbox)
        payloads.append(payload)
        resets.append(reset)
        forks.append(fork)
        flags.append(
            ("a" if awaits else "")
            + ("" if run_changes.cancels is None else f"c{run_changes.cancels}")
            + _FLAGS[run_changes.suspicion]
        )
        states.append(run_changes.state)
        tags.append(run_changes.tags)
    return {
        "outcome_run": "{" + ",".join([str(number) for number, _ in changing]) + "}",
        "outcome": _texts(words),
        "outcome_wake_at": _times(wake_ats),
        "waiting_for": _texts(waiting),
        "mailbox": _numbers(mailboxes),
        "payload": _texts(payloads),
        "reset": _texts(resets),
        "fork_before": _texts(forks),
        "flags": _texts(flags),
        "state": _texts(states),
        "tags": _texts(tags),
    }


def skip_locked_parameters(parts: Sequence[RunPart]) -> dict[str, Any]:
    """The parameters that name what may be there already and will be changed: rows of history, signals, workflows.

    Raises:
        Unwritable: A text holds the character that separates values.
    """
    known = [(number, row.location) for number, part in enumerate(parts, 1) for row in part.rows]
    taken = [
        (number, id.hex)
        for number, part in enumerate(parts, 1)
        if part.run_changes is not None
        for id, _ in (*part.run_changes.consumed, *part.run_changes.aside)
    ]
    return {
        "known_runs": _numbers([number for number, _ in known]) or "{}",
        "known_rows": _texts([location for _, location in known]) or "",
        "taken_runs": _numbers([number for number, _ in taken]) or "{}",
        "taken_ids": "{" + ",".join([id for _, id in taken]) + "}",
        "altered_runs": _numbers([number for number, part in enumerate(parts, 1) if part.changes]) or "{}",
    }


_NOTHING = RunChanges()

_FLAGS = {"": "", "counted": "k", "lifted": "l"}

_WORDS: dict[type, str] = {
    type(None): "kept",
    Suspended: "sleeping",
    Completed: "completed",
    Failed: "failed",
    Cancelled: "cancelled",
    Released: "released",
}


def _texts(values: Sequence[str | None]) -> str | None:
    """One text of all values, an absent one as nothing; None if all are absent."""
    count = len(values)
    absent = values.count(None)
    if absent == count:
        return None
    joined = SEPARATOR.join([value or "" for value in values]) if absent else SEPARATOR.join(values)  # type: ignore[arg-type]
    if joined.count(SEPARATOR) != count - 1:
        raise UnwritableValue("a text holds the control character U+001F, which cannot be stored; JSON escapes it")
    return joined


def _numbers(values: Sequence[int | None]) -> str | None:
    """An array literal of all values; None if all are absent."""
    absent = values.count(None)
    if absent == len(values):
        return None
    if absent:
        return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"
    if values.count(values[0]) == len(values):
        return "{" + ",".join([str(values[0])] * len(values)) + "}"
    return "{" + repr(list(values))[1:-1] + "}"  # twice as fast as to join their texts


def _times(values: Sequence[datetime | None]) -> str | None:
    if values.count(None) == len(values):
        return None
    return SEPARATOR.join(["" if value is None else value.isoformat() for value in values])
