"""Checks of active history, which a replay has to read: loops that do not forget, and what grows without one."""

from __future__ import annotations

from collections.abc import Sequence

from pgflow.model.diagnosis import Finding
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query
from pgflow.store.doctor.check import Check, CheckContext, Row, many

LONG = 10_000
"""Rows of active history at which a worker warns as well."""

TURNS = 200
"""Turns of a loop in active history: ten times the usual `commit_interval`."""

LOOP_ROWS = 2_000
"""Rows of these turns, at least."""

COUNTED = 100_001
"""The most rows of one workflow that are counted."""

PAGES = 2_000
"""Pages of the table that are read to find such workflows."""


def histories(asked: CheckContext) -> Query[list[Finding]]:
    """Whether histories grow."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [
            Finding(
                "histories",
                "warning",
                f"fewer than {LONG:,} rows of active history",
                f"the workflow {id} ({name}) has {many(number, COUNTED)}: each replay reads them all, and at "
                "`max_active_rows` "
                "(100,000) it fails",
                f"`pgflow workflow history {id}` shows what repeats: let its code do it in `ctx.loop`, or in children",
                (str(id),),
            )
            for id, name, number in rows
        ]

    return Query(statement("doctor_histories", asked.schema), _params(asked, LONG), read)


def loops(asked: CheckContext) -> Query[list[Finding]]:
    """Whether loops forget their turns."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [
            Finding(
                "loops",
                "warning",
                f"loops with fewer than {TURNS} turns in active history (`commit_interval` is 20 unless the "
                "code says more)",
                f"the loop at {at} of the workflow {id} ({name}) has forgotten {progress:,} turns and has "
                f"{turns:,} more in "
                f"active history, {many(number, COUNTED)} rows",
                "see the log of its worker for why it does not get to forget; end transactions that hold the "
                "workflow's rows locked",
                (str(id),),
            )
            for id, name, at, progress, turns, number in rows
        ]

    params = {**_params(asked, LOOP_ROWS), "turns": TURNS}
    return Query(statement("doctor_loops", asked.schema), params, read)


def _params(asked: CheckContext, rows: int) -> dict[str, object]:
    return {"pages": PAGES, "events": f"{quoted(asked.schema)}.events", "rows": rows, "bound": COUNTED}


HISTORY_CHECKS = (Check("histories", histories), Check("loops", loops))
