"""What the runs in a worker's memory know the database to have: one that lacks it is behind
(`pgflow.store.leasing.fencing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from pgflow.execution.engine.run import Run
from pgflow.history.events import STATUS_PENDING
from pgflow.model.claimed import Claimed
from pgflow.store.leasing.fencing import Held


def held(runs: Mapping[UUID, Run], cold: Iterable[Claimed] = ()) -> list[Held]:
    """Of each run its claim, the news that it has seen, and the row that was committed last.

    Of a run that is forgetting turns at the moment no row: it may be gone already.

    Args:
        runs: those that are executed.
        cold: those that have been claimed and will be.
    """
    found = []
    for id, run in runs.items():
        witness = run.outgoing.witness
        location, status = (None, STATUS_PENDING) if witness is None or run.advancing else witness
        found.append(Held(id, run.claimed.epoch, run.claimed.mailbox, location, status != STATUS_PENDING))
    found += [
        Held(each.workflow_id, each.epoch, each.mailbox, None, False) for each in cold if each.workflow_id not in runs
    ]
    return found
