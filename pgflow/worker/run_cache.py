"""Suspended runs that stay in memory for a while, so that they go on without a replay when they are claimed again."""

from __future__ import annotations

import time
from collections import OrderedDict
from uuid import UUID

from pgflow.execution.engine.run import Run
from pgflow.model.claimed import Claimed

KEPT = 60.0
"""Seconds that a suspended run stays in memory."""


class RunCache:
    """A bounded number of suspended runs; the one that has been suspended longest leaves first.

    Args:
        most: how many, at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._runs: OrderedDict[UUID, tuple[Run, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        """Keep a run that has just suspended."""
        self._runs[run.claimed.workflow_id] = (run, time.monotonic() + KEPT)
        while len(self._runs) > self._most:
            _, (oldest, _) = self._runs.popitem(last=False)
            oldest.discard()

    def take(self, claimed: Claimed) -> Run | None:
        """The run of a workflow that was claimed, if it is here and no other worker has held the workflow since."""
        found = self._runs.pop(claimed.workflow_id, None)
        if found is None:
            return None
        run = found[0]
        if claimed.warm and claimed.epoch == run.claimed.epoch + 1:
            return run
        run.discard()
        return None

    def expire(self) -> None:
        """Discard the runs that have been here too long."""
        now = time.monotonic()
        while self._runs:
            run, until = next(iter(self._runs.values()))
            if until > now:
                return
            self._runs.popitem(last=False)
            run.discard()

    def clear(self) -> None:
        """Discard all."""
        for run, _ in self._runs.values():
            run.discard()
        self._runs.clear()
