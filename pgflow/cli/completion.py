"""What the shell offers when Tab is pressed behind `pgflow ...`: ids and names from the database, as far as it answers
at once.

Set up by `eval "$(_PGFLOW_COMPLETE=bash_source pgflow)"` (zsh_source, fish_source).
"""

from __future__ import annotations

from typing import Any

import click
import psycopg
from click.shell_completion import CompletionItem

from pgflow.client.filters import STATUSES
from pgflow.store.database.connections import Database
from pgflow.store.database.query import Query, ask_blocking
from pgflow.store.queries import completions

PATIENCE = 2
"""Seconds after which nothing is offered: whoever presses Tab does not wait for a database."""


class _WorkflowId(click.types.UUIDParameterType):
    """A workflow's id; offered are the youngest of those that begin so."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The ids, each with its workflow's name."""
        found = _asked(ctx, lambda schema: completions.ids(schema, incomplete))
        return [CompletionItem(str(id), help=name) for id, name in found]


class _Names(click.types.StringParamType):
    """Text that is one of those which the database knows."""

    def __init__(self, names: Any) -> None:
        self._names = names

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The names that begin so."""
        return [CompletionItem(name) for name in _asked(ctx, lambda schema: self._names(schema, incomplete))]


WORKFLOW_ID = _WorkflowId()
WORKFLOW_NAME = _Names(completions.names)
QUEUE = _Names(completions.queues)


def complete_statuses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The statuses that begin as the last of several, with commas between them, does."""
    before, comma, last = incomplete.rpartition(",")
    return [CompletionItem(before + comma + status) for status in STATUSES if status.startswith(last)]


def _asked(ctx: click.Context, query: Any) -> list[Any]:
    """What the database that is named so far answers. Nothing is offered instead of an error, which would tear up the
    line that somebody types.
    """
    dsn, schema = ctx.params.get("dsn"), ctx.params.get("schema") or "pgflow"
    if not dsn:
        return []
    try:
        asked: Query[list[Any]] = query(schema)
        with Database(dsn, schema, longest_silence=PATIENCE).connect_blocking("cli") as connection:
            connection.execute(f"SET statement_timeout = '{PATIENCE}s'".encode())
            return ask_blocking(connection, asked)
    except (psycopg.Error, ValueError):
        return []
