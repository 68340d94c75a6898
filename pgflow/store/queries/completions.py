"""What begins as somebody has typed it: bounded statements for the completion of a shell."""

from __future__ import annotations

import re
from uuid import UUID

from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query

MOST = 50
"""How many are offered."""


def ids(schema: str, begin: str) -> Query[list[tuple[UUID, str]]]:
    """The statement that reads the youngest workflows whose ids begin so, with their names.

    Raises:
        ValueError: No id begins so.
    """
    begin = begin.lower()
    digits = begin.replace("-", "")
    if len(digits) > 32 or re.fullmatch("[0-9a-f]*", digits) is None:
        raise ValueError(f"no id begins with {begin!r}")
    first, last = UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))
    asked = {"first": first, "last": last, "most": MOST}
    return Query(statement("complete_ids", schema), asked, lambda rows: [(row[0], row[1]) for row in rows])


def names(schema: str, begin: str) -> Query[list[str]]:
    """The statement that reads the names of workflows that begin so."""
    return Query(statement("complete_names", schema), {"begin": begin, "most": MOST}, lambda rows: [r[0] for r in rows])


def queues(schema: str, begin: str) -> Query[list[str]]:
    """The statement that reads the queues that living workers serve, or that work waits in, and that begin so."""
    return Query(
        statement("complete_queues", schema), {"begin": begin, "most": MOST}, lambda rows: [r[0] for r in rows]
    )
