"""Starting workflows and asking what became of them: statements for the clients and for children.

The caller makes the ids, so that a dispatch whose answer was lost can be sent again. One statement starts one workflow
or thousands. After the commit (never within a busy transaction) `wake` hints at the queues' new work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import psycopg

from pgflow.errors import PgflowError
from pgflow.model.commands import Dispatch, Dispatched, Standing
from pgflow.store.database.arrays import literal
from pgflow.store.database.channels import done_channel, done_payloads, wake_channel, wake_payload
from pgflow.store.database.connections import is_out_of_patience, statement
from pgflow.store.database.encodings import ArrayText
from pgflow.store.database.query import Query


def dispatch(schema: str, workflows: Sequence[Dispatch]) -> Query[list[Dispatched]]:
    """The statement that starts workflows; what was started before is left as it is.

    Args:
        schema: The schema's name, unquoted.
        workflows: What to start. Up to a few thousand in one statement, with inputs of at most some 100 MB together.

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
    text = statement("dispatch_given", schema) + statement("dispatch", schema)
    return Query(text, columns_of(workflows), _dispatched)


def dispatch_fresh(schema: str, workflows: Sequence[Dispatch]) -> Query[list[Dispatched]]:
    """The statement that starts workflows whose ids have just been made, in half the time of `dispatch`.

    Args:
        workflows: At least one; they differ in id and input alone, and are not unique.

    Returns:
        A query as of `dispatch`, which takes its place (`again`) when an id is there already.
    """
    first = workflows[0]
    params = {
        "ids": literal([workflow.id for workflow in workflows]),
        "inputs": ArrayText(literal([workflow.input for workflow in workflows])),
        "name": first.name,
        "tags": first.tags,
        "queue": first.queue,
        "priority": first.priority,
        "run_at": first.run_at,
    }

    def read(rows: Sequence[tuple[Any, ...]]) -> list[Dispatched]:
        return [Dispatched(workflow.id, workflow.name, True) for workflow in workflows]

    return Query(statement("dispatch_fresh", schema), params, read, partial(dispatch, schema, workflows))


def dispatch_called(schema: str, workflows: Sequence[Dispatch], quiet: bool) -> Query[list[Dispatched]]:
    """The statement that starts workflows by calling a function, for roles that may not write tables.

    Args:
        quiet: The function is not to notify.
    """
    columns = columns_of(workflows)
    del columns["detached"]
    return Query(statement("dispatch_called", schema), {**columns, "quiet": quiet}, _dispatched)


def columns_of(workflows: Sequence[Dispatch]) -> dict[str, str]:
    """The parameters that carry what is to be started, by column."""
    columns: Sequence[Sequence[Any]] = list(zip(*workflows, strict=True)) if workflows else [()] * len(Dispatch._fields)
    names = ("ids", "names", "inputs", "tags", "uniques", "run_ats", "priorities", "queues", "detached", "timeouts")
    found = dict(zip(names, map(literal, columns), strict=True))
    found["inputs"] = ArrayText(found["inputs"])
    return found


def _dispatched(rows: Sequence[tuple[Any, ...]]) -> list[Dispatched]:
    return [Dispatched(*row[1:4]) for row in rows]


def held_up(error: psycopg.Error, workflow: Dispatch) -> PgflowError | None:
    """The error for a unique dispatch that has waited in vain; None: it is another error.

    Example:
        if (refused := held_up(error, workflow)) is not None:
            raise refused from error
    """
    if not (workflow.unique and is_out_of_patience(error)):
        return None
    return PgflowError(
        f'dispatch: expected to learn in time whether a live workflow "{workflow.name}" has the tags '
        f"{workflow.tags}. Most likely somebody's transaction that is still open starts or ends it, and only its end "
        "will tell. Nothing was started: try again when it has ended (pg_stat_activity shows it, idle in transaction "
        "perhaps)"
    )


def standings(schema: str, ids: Iterable[UUID]) -> Query[dict[UUID, Standing]]:
    """The statement that reads how workflows stand.

    Returns:
        A query whose `read` gives them by id; an unknown id is missing there.

    Example:
        query = standings("pgflow", [workflow_id])
    """
    return Query(statement("standings_read", schema), {"ids": list(ids)}, _standings)


def _standings(rows: Sequence[tuple[Any, ...]]) -> dict[UUID, Standing]:
    return {row[0]: Standing(*row) for row in rows}


def wake(schema: str, queues: Iterable[str], *, id: UUID | None = None, quick: bool = False) -> Query[None]:
    """The hint that queues have new work. Send it after the commit, or within a caller's own transaction.

    Args:
        id: The new work, if it is this one workflow.
        quick: Whether it is a transaction of its own, which need not wait for the disk.
    """
    return _notify(schema, wake_channel(schema), [wake_payload(queue, id) for queue in sorted(set(queues))], quick)


def done(schema: str, ids: Iterable[UUID | str], *, quick: bool = False) -> Query[None]:
    """The hint that workflows have ended; `quick` as for `wake`."""
    return _notify(schema, done_channel(schema), list(done_payloads(ids)), quick)


def may_notify(schema: str) -> Query[bool]:
    """Whether a hint can be sent without an error, which would end the transaction that it is sent in."""
    return Query(statement("may_notify", schema), {}, lambda rows: bool(rows[0][0]))


def _notify(schema: str, channel: str, payloads: list[str], quick: bool) -> Query[None]:
    text = statement("notify_quick" if quick else "notify", schema)
    return Query(text, {"channel": channel, "payloads": payloads}, _nothing)


def _nothing(rows: Sequence[tuple[Any, ...]]) -> None:
    return None
