"""What waits in each queue: statements whose work is bounded, however much waits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from pgflow.model.queue_info import QueueInfo, QueueWork
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query

LEVELS = 1_000
"""The most queues, and the most of their names and priorities, that are looked at."""

COUNTED = 200_000
"""The most due workflows that are counted, over all queues."""


def workers(schema: str) -> Query[dict[str, int]]:
    """The statement that reads how many living workers serve each queue."""
    return Query(statement("queue_workers", schema), {"levels": LEVELS}, dict)


def waiting(schema: str, served: dict[str, int]) -> Query[list[QueueInfo]]:
    """The statement that reads what waits in each queue.

    Args:
        served: What `workers` has read: queues in which nothing waits are listed as well.
    """
    asked = {"levels": LEVELS, "bound": COUNTED}
    return Query(statement("queues", schema), asked, lambda rows: _queues(rows, served))


def _queues(rows: Sequence[tuple[Any, ...]], served: dict[str, int]) -> list[QueueInfo]:
    found = {name: QueueInfo(name, count, 0, False, None, None, []) for name, count in served.items()}
    for name, of_queue in groupby(rows, itemgetter(0)):
        lines = list(of_queue)
        found[name] = QueueInfo(
            name,
            served.get(name, 0),
            sum(due for _, _, due, *_ in lines),
            any(cut for *_, cut in lines),
            min((oldest for _, _, _, oldest, *_ in lines if oldest is not None), default=None),
            min((next for _, _, _, _, next, *_ in lines if next is not None), default=None),
            [QueueWork(workflow, due, oldest, next) for _, workflow, due, oldest, next, *_ in lines],
        )
    return [found[name] for name in sorted(found)]
