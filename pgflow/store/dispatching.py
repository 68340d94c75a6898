"""Starting workflows and asking what became of them: statements for the clients and for children.

Ids are made by whoever dispatches, so that a dispatch whose answer was lost can be sent again. One statement starts one
workflow or thousands. After the commit (never within a busy transaction) `wake` hints at the queues' new work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pgflow.store.channels import done_channel, done_payloads, wake_channel
from pgflow.store.connections import statement
from pgflow.store.query import Query


class Dispatch(NamedTuple):
    """One workflow to start. `input` and `tags` are JSON text; `id` comes from `pgflow.store.uuid7`."""

    id: UUID
    name: str
    input: str = "{}"
    tags: str = "{}"
    unique: bool = False
    """Held back while another live workflow that was dispatched so has the same name and exactly the same tags."""
    run_at: datetime | None = None
    """When it may start; None, or a moment that has passed: now."""
    priority: int = 0
    queue: str = "default"
    parent_id: UUID | None = None
    root_id: UUID | None = None


class Dispatched(NamedTuple):
    """What a dispatch came to."""

    id: UUID | None
    """The workflow's id: the given one, or that of the live workflow that holds the same unique key."""
    name: str | None
    """The name of the workflow that has this id. Another name than the one asked for is the caller's mistake."""
    created: bool
    """Whether this statement started it."""

    @property
    def unseen(self) -> bool:
        """Somebody else started the same at the same moment and cannot be seen yet: send the query again."""
        return self.id is None


class Outcome(NamedTuple):
    """How a workflow stands. `status` is final when it is completed, failed or cancelled; payloads are JSON text."""

    id: UUID
    name: str
    status: str
    output: str | None
    error: str | None

    @property
    def ended(self) -> bool:
        """Whether it has an output, or will have none unless somebody retries it."""
        return self.status in ("completed", "failed", "cancelled")


def dispatch(schema: str, workflows: Sequence[Dispatch]) -> Query[list[Dispatched]]:
    """The statement that starts workflows; what was started before is left as it is.

    Args:
        schema: The schema's name, unquoted.
        workflows: What to start. A few thousand in one statement are well; inputs together below some 100 MB.

    Returns:
        A query whose `read` gives one `Dispatched` for each of `workflows`, in order.

    Raises:
        psycopg.errors.UniqueViolation: (when executed) a workflow of the same id started in the very same moment; the
            same statement succeeds when it is sent again.
        psycopg.DataError: (when executed) an input or tags that the database cannot store; nothing was started.

    Example:
        query = dispatch("pgflow", [Dispatch(uuid7(), "checkout", '{"order":1}')])
        cursor = await connection.execute(query.sql, query.params)
        (dispatched,) = query.read(await cursor.fetchall())
    """
    columns: Sequence[Sequence[Any]] = (
        list(zip(*workflows, strict=True)) if workflows else [()] * 10
    )
    names = ("ids", "names", "inputs", "tags", "uniques", "run_ats", "priorities", "queues")
    params = dict(
        zip((*names, "parent_ids", "root_ids"), map(list, columns), strict=True),
    )
    return Query(statement("dispatch", schema), params, _dispatched)


def _dispatched(rows: Sequence[tuple[Any, ...]]) -> list[Dispatched]:
    return [Dispatched(*row[1:]) for row in rows]


def outcomes(schema: str, ids: Iterable[UUID]) -> Query[dict[UUID, Outcome]]:
    """The statement that tells how workflows stand.

    Returns:
        A query whose `read` gives the outcomes by id; an unknown id is missing there.

    Example:
        query = outcomes("pgflow", [workflow_id])
    """
    return Query(statement("outcomes", schema), {"ids": list(ids)}, _outcomes)


def _outcomes(rows: Sequence[tuple[Any, ...]]) -> dict[UUID, Outcome]:
    return {row[0]: Outcome(*row) for row in rows}


def wake(schema: str, queues: Iterable[str], *, quick: bool = False) -> Query[None]:
    """The hint that queues have new work. Send it after the commit, or within a caller's own transaction.

    Args:
        quick: It is a transaction of its own, which need not wait for the disk.
    """
    return _notify(schema, wake_channel(schema), sorted(set(queues)), quick)


def done(schema: str, ids: Iterable[UUID]) -> Query[None]:
    """The hint that workflows have ended."""
    return _notify(schema, done_channel(schema), list(done_payloads(ids)), False)


def may_notify(schema: str) -> Query[bool]:
    """Whether a hint can be sent without an error, which would end the transaction that it is sent in."""
    return Query(statement("may_notify", schema), {}, lambda rows: bool(rows[0][0]))


def _notify(schema: str, channel: str, payloads: list[str], quick: bool) -> Query[None]:
    text = statement("notify_quick" if quick else "notify", schema)
    return Query(text, {"channel": channel, "payloads": payloads}, _nothing)


def _nothing(rows: Sequence[tuple[Any, ...]]) -> None:
    return None
