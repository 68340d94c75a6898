"""The journal's statement, its pieces put together for what a batch holds, and the batch's parameters.

It fences each run by its own epoch, appends rows, consumes signals, or sets them aside, and decides outcomes, all in
one statement. The journal sends it for many runs at once; a transactional activity sends it for its own run within its
own transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from pgflow.errors import LeaseLost
from pgflow.history.events import KIND_LOOP, STATUS_PENDING
from pgflow.model.outcomes import Cancelled, Completed
from pgflow.model.rows import RunKey
from pgflow.store.database.connections import statement
from pgflow.store.journal.batch import (
    RunPart,
    aside_parameters,
    outcome_parameters,
    row_parameters,
    run_parameters,
    signal_parameters,
    skip_locked_parameters,
)

_ENDED = (Completed, Cancelled)
"""The outcomes after which the run's row is deleted."""


def append(
    schema: str,
    worker: str,
    parts: Sequence[RunPart],
    *,
    careful: bool = True,
    skip_locked: bool = False,
    begun_before: bool = False,
) -> tuple[bytes, dict[str, Any]]:
    """The statement that writes a batch, and its parameters.

    Args:
        schema: The schema of the tables.
        worker: The worker whose leases fence the batch.
        parts: What each run has in it.
        careful: Whether a row may exist already without being visible, such as one of a batch whose fate is unknown. If
            this is False and there is one, the statement fails with a unique violation.
        skip_locked: Whether a row that exists already may be locked by another session: then its run is skipped like
            one whose own row is locked. Otherwise the statement waits for it. A loop that ends is always treated like
            this, since it may just be advancing.
        begun_before: Whether the transaction was begun by other statements, perhaps long ago: its `now()` is then not
            the time.

    Raises:
        UnwritableValue: A text holds a character that cannot be sent.
    """
    rows, outcomes = row_parameters(parts), outcome_parameters(parts)
    signals = aside = None
    if any([part.run_changes is not None for part in parts]):
        signals, aside = signal_parameters(parts), aside_parameters(parts)
    skip_locked = skip_locked or (
        rows is not None and KIND_LOOP in rows["kind"] and any(map(_ends_a_loop, parts)) and not begun_before
    )
    parameters = {
        "worker": worker,
        **run_parameters(parts),
        **({"careful": careful, **rows} if rows is not None else {}),
        **(signals or {"consumed": None}),
        **(aside or {"aside": None}),
        **(outcomes or {}),
        **(skip_locked_parameters(parts) if skip_locked else {}),
    }
    stays = outcomes is not None and any(
        [
            part.changes and not isinstance(part.outcome, _ENDED)
            for part in parts
            if part.outcome is not None or part.run_changes is not None
        ]
    )
    text = _text(
        schema, skip_locked, rows is not None, signals is not None, aside is not None, outcomes is not None, stays
    )
    return _with_own_time(text) if begun_before else text, parameters


def lost(key: RunKey) -> LeaseLost:
    """The error for a run that is not this worker's any more."""
    return LeaseLost(
        f"workflow {key.workflow}: this worker no longer holds the lease of epoch {key.epoch}, nothing was written; "
        "whoever holds it now goes on from the recorded history"
    )


@cache
def _text(schema: str, skip_locked: bool, rows: bool, signals: bool, aside: bool, outcomes: bool, stays: bool) -> bytes:
    fence = statement("journal_fence", schema)
    if skip_locked:  # the session that holds its own row is not fenced yet
        fence = fence.replace(b"fenced AS", b"held AS") + statement("journal_skip_locked", schema)
    names = [
        *["journal_rows"] * rows,
        *["journal_consumed"] * signals,
        *["journal_aside"] * aside,
        *["journal_outcomes"] * outcomes,
        *["journal_stopped"] * stays,
        "journal_result",
    ]
    return fence + b"".join(statement(name, schema) for name in names)


def _ends_a_loop(part: RunPart) -> bool:
    return any([row.kind == KIND_LOOP and row.status != STATUS_PENDING for row in part.rows])


@cache
def _with_own_time(text: bytes) -> bytes:
    return text.replace(b"now()", b"statement_timestamp()")
