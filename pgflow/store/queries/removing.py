"""Removing what has ended: the statement that looks through some workflows and removes those that may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query
from pgflow.store.queries.operating import AuditNote


class Removed(NamedTuple):
    """What one statement has found.

    Attributes:
        place: where to go on, for the next statement; None: there is nothing more.
        tried: the workflows that matched, and of each why it stays, or None.
    """

    place: tuple[datetime, UUID] | None
    tried: list[tuple[UUID, str | None]]


def remove(
    schema: str,
    asked: Mapping[str, Any],
    place: tuple[datetime, UUID] | None,
    most: int,
    dry_run: bool,
    note: AuditNote,
) -> Query[Removed]:
    """The statement that removes workflows that ended so long ago, the first first, behind a place.

    Args:
        asked: `older_than`, `statuses`, and `name`, `queue`, `tags` (JSON text) and `parent_id`, None for any.
        most: how many, at most.
    """
    at, id = place or (None, None)
    params = {**asked, "at": at, "id": id, "most": most, "dry_run": dry_run}
    return Query(statement("prune", schema), {**params, "reason": note.reason, "actor": note.actor}, _removed)


def _removed(rows: Sequence[tuple[Any, ...]]) -> Removed:
    if not rows:
        return Removed(None, [])
    return Removed((rows[0][0], rows[0][1]), [(id, stays) for _, _, id, stays in rows if id is not None])
