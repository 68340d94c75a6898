"""Reading which workers there are, and what they know of workflows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pgflow.model.info import Definition, WorkerInfo
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query


def workers(schema: str, queue: str | None, limit: int) -> Query[list[WorkerInfo]]:
    """The statement that lists workers, those of the newest build first.

    Args:
        queue: that they serve; None: any.
        limit: how many, at most.
    """
    return Query(statement("workers_list", schema), {"queue": queue, "limit": limit}, _workers)


def definitions(schema: str, name: str | None, limit: int) -> Query[list[Definition]]:
    """The statement that lists what live workers know of workflows, the newest build first.

    Args:
        name: of the workflows; None: any.
        limit: how many, at most.
    """
    return Query(statement("definitions_list", schema), {"name": name, "limit": limit}, _definitions)


def _definitions(rows: Sequence[tuple[Any, ...]]) -> list[Definition]:
    return [Definition(name, queue, build, json.loads(arguments)) for name, queue, build, arguments in rows]


def _workers(rows: Sequence[tuple[Any, ...]]) -> list[WorkerInfo]:
    return [WorkerInfo(*row) for row in rows]
