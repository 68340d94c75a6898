"""What the runs in a worker's memory know to be committed: a database without it has fallen behind
(`pgflow.store.leasing.fencing`), as a standby may that was promoted too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from pgflow.execution.engine.run import Run
from pgflow.history.events import STATUS_PENDING
from pgflow.model.claimed import Claimed
from pgflow.store.leasing.fencing import HeldRun


def held(runs: Mapping[UUID, Run], cold: Iterable[Claimed] = ()) -> list[HeldRun]:
    """For each run: its claim, the news that it has seen, and the row that was committed last.

    A run that is forgetting turns at the moment names no row, since that row may be gone already.

    Args:
        runs: those that are being executed.
        cold: those that have been claimed and are not being executed yet.
    """
    found = []
    for id, run in runs.items():
        witness = run.outgoing.witness
        location, status = (None, STATUS_PENDING) if witness is None or run.advancing else witness
        found.append(HeldRun(id, run.claimed.epoch, run.claimed.mailbox, location, status != STATUS_PENDING))
    found += [
        HeldRun(each.workflow_id, each.epoch, each.mailbox, None, False)
        for each in cold
        if each.workflow_id not in runs
    ]
    return found
