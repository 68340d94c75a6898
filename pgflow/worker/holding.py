"""What the runs in a worker's memory know the database to have: one that lacks it is behind (`pgflow.store.fencing`)."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from pgflow.execution.run import Run
from pgflow.store.fencing import Held


def held(runs: Mapping[UUID, Run]) -> list[Held]:
    """Of each run its claim, the news that it has seen, and the row that was committed last.

    Of a run that is forgetting turns at the moment no row: it may be gone already.
    """
    found = []
    for id, run in runs.items():
        witness = run.outgoing.witness
        location, ended = (None, False) if witness is None or run.advancing else witness
        found.append(Held(id, run.claimed.epoch, run.claimed.mailbox, location, ended))
    return found
