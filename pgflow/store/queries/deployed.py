"""Reading which workers there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgflow.model.info import WorkerInfo
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query


def workers(schema: str, queue: str | None, limit: int) -> Query[list[WorkerInfo]]:
    """The statement that lists workers, those of the newest build first.

    Args:
        queue: that they serve; None: any.
        limit: how many, at most.
    """
    return Query(statement("workers_list", schema), {"queue": queue, "limit": limit}, _workers)


def _workers(rows: Sequence[tuple[Any, ...]]) -> list[WorkerInfo]:
    return [WorkerInfo(*row) for row in rows]
