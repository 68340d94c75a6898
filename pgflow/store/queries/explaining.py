"""Why a workflow is where it is: the statement that reads what there is to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pgflow.model.explanation import SHOWN, ChildInfo, Facts, UnreadSignal, awaited_children
from pgflow.model.info import HistoryEvent
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query

_CHILDREN_LOOKED_AT = 1_000


def facts(schema: str, workflow_id: UUID, pending: Sequence[HistoryEvent]) -> Query[Facts | None]:
    """The statement that reads it; None: there is no such workflow.

    Args:
        pending: The workflow's pending steps: it also tells how the children stand that they wait for.
    """
    asked = {
        "id": workflow_id,
        "awaited": awaited_children(pending),
        "limit": SHOWN,
        "looked_at": _CHILDREN_LOOKED_AT,
    }
    return Query(statement("explain", schema), asked, _facts)


def _facts(rows: Sequence[tuple[Any, ...]]) -> Facts | None:
    if not rows:
        return None
    *most, mailbox, dead, children, awaited = rows[0]
    return Facts(  # type: ignore[call-arg]  # the columns stand in the order of its fields
        *most,
        [
            UnreadSignal(UUID(one["id"]), one["name"], datetime.fromisoformat(one["created_at"]))
            for one in mailbox or ()
        ],
        dead,
        [ChildInfo(UUID(one["id"]), one["name"], one["status"]) for one in children or ()],
        {UUID(id): status for id, status in (awaited or {}).items()},
    )
