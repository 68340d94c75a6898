"""The answer of a batch of the journal, run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from pgflow.model.rows import RunKey
from pgflow.model.writes import Write
from pgflow.store.journal.batch import RunPart
from pgflow.store.journal.statement import lost

Verdict = tuple[Sequence[Write], datetime | BaseException]
"""When writes were committed, or why they were refused."""


class BatchAnswer(NamedTuple):
    """The result of one batch: verdicts on its writes, those of one run in order, the parts whose runs were busy, and
    poisoned runs.
    """

    settled: list[Verdict]
    busy: list[RunPart]
    poisoned: dict[RunKey, BaseException]

    def __add__(self, other: object) -> BatchAnswer:
        assert isinstance(other, BatchAnswer)
        return BatchAnswer(self.settled + other.settled, self.busy + other.busy, self.poisoned | other.poisoned)


def read(
    parts: Sequence[RunPart],
    is_final: Callable[[], bool],
    at: datetime,
    fenced: int,
    fenced_runs: list[int] | None,
    busy_runs: list[int] | None,
) -> BatchAnswer:
    """What the statement's answer means for each run of the batch.

    Args:
        is_final: Whether runs that were not written are lost, rather than to be sent again under another number.
    """
    if fenced_runs is None:
        return BatchAnswer([([write for part in parts for write in part.writes], at)], [], {})
    final = is_final()
    written, busy = set(fenced_runs), set(busy_runs or ())
    settled: list[Verdict] = []
    waiting: list[RunPart] = []
    for number, part in enumerate(parts, 1):
        if number in written:
            settled.append((part.writes, at))
        elif number in busy or not final:
            waiting.append(part)
        else:
            settled.append((part.writes, lost(part.key)))
    return BatchAnswer(settled, waiting, {})
