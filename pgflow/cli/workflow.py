"""`pgflow workflow show | history | export`: shows a workflow and changes nothing. Which there are is in `find.py`, and
what changes them in `operate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import click

from pgflow.cli import render
from pgflow.cli.completion import WORKFLOW_ID
from pgflow.cli.database_options import database_options, readable_errors
from pgflow.cli.find import count, list_
from pgflow.cli.operate import COMMANDS
from pgflow.cli.watch import watch_option, watched
from pgflow.model.explanation import SHOWN, explanation
from pgflow.model.info import HistoryEvent, WorkflowInfo
from pgflow.store.database.connections import Database
from pgflow.store.database.query import Query, ask_blocking
from pgflow.store.queries import explaining, histories, inspection, rights
from pgflow.store.schema.compatibility import check_blocking

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

ENDED = ("completed", "failed", "cancelled")

AUDIT_SHOWN = 5
"""Operations that `show` lists, at most; `pgflow audit ID` lists all."""

_json = click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")


@click.group()
def workflow() -> None:
    """Show workflows and their history, and operate them. Times are UTC."""


for _command in (list_, count, *COMMANDS):
    workflow.add_command(_command)


@workflow.command()
@click.argument("id", type=WORKFLOW_ID)
@database_options
@_json
@watch_option
def show(id: UUID, dsn: str, schema: str, as_json: bool, watch: bool) -> None:
    """Show the workflow ID, why it waits and what for, and the last operations on it.

    Example: pgflow workflow show 0198c0de-0000-7000-8000-000000000000 --watch
    """
    with readable_errors(), _asking(dsn, schema) as ask:

        def look() -> tuple[object, bool]:
            found = _known(ask, schema, id)
            waits = ask(inspection.pending(schema, id, SHOWN + 1))
            facts = ask(explaining.facts(schema, id, waits))
            if facts is None:
                raise _unknown(schema, id)
            why = explanation(id, facts, waits)
            done = ask(inspection.audit(schema, workflow_id=id, limit=AUDIT_SHOWN))
            if as_json:
                parts = {name: getattr(why, name) for name in ("reasons", "pending", "mailbox", "children", "more")}
                click.echo(render.document(found, **parts, audit=done))
            else:
                render.workflow(found)
                render.explanation(why)
                if done:
                    render.audit(done, title="what operators did last")
            return (found, waits, why.mailbox, why.children, done), found.status in ENDED

        watched(look) if watch else look()


@workflow.command()
@click.argument("id", type=WORKFLOW_ID)
@database_options
@click.option(
    "--forgotten",
    is_flag=True,
    help="Include what a replay no longer reads: archived turns of loops, and what rewinds have undone.",
)
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="How many steps, at most.")
@_json
def history(id: UUID, dsn: str, schema: str, forgotten: bool, limit: int, as_json: bool) -> None:
    """Show the steps of the workflow ID in order of execution.

    Example: pgflow workflow history 0198c0de-0000-7000-8000-000000000000 --forgotten
    """
    with readable_errors(), _asking(dsn, schema) as ask:
        found: list[HistoryEvent] = ask(inspection.history(schema, id, forgotten, limit + 1))
        if not found:
            _known(ask, schema, id)
    shown, more = found[:limit], len(found) > limit
    if as_json:
        click.echo(render.document(shown))
    else:
        render.history(shown)
    if more:
        click.echo(f"There are more than {limit} steps; --limit shows more.", err=True)


@workflow.command()
@click.argument("id", type=WORKFLOW_ID)
@database_options
def export(id: UUID, dsn: str, schema: str) -> None:
    """Print the workflow ID and its active history as one JSON document.

    `pgflow.testing.replay(workflow, document)` runs today's code over it in a unit test.

    Example: pgflow workflow export 0198c0de-0000-7000-8000-000000000000 > tests/histories/checkout.json
    """
    with readable_errors(), _asking(dsn, schema) as ask:
        found = ask(histories.read(schema, id))
    if not found:
        raise _unknown(schema, id)
    click.echo(found[0].to_json())


@contextmanager
def _asking(dsn: str, schema: str) -> Iterator[Callable[[Query[T]], T]]:
    """Runs queries on a connection to a database whose server and schema fit this code."""
    with Database(dsn, schema).connect_blocking("cli") as connection:
        check_blocking(connection, schema)
        may = ask_blocking(connection, rights.find(schema))
        yield lambda query: ask_blocking(connection, may.visible(query))


def _known(ask: Callable[[Query[Any]], Any], schema: str, id: UUID) -> WorkflowInfo:
    found: list[WorkflowInfo] = ask(inspection.get(schema, [id]))
    if not found:
        raise _unknown(schema, id)
    return found[0]


def _unknown(schema: str, id: UUID) -> click.ClickException:
    return click.ClickException(f'there is no workflow {id} in schema "{schema}"')
