"""What the commands that work on a database share: the options that name it, and readable errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import psycopg

from pgflow.errors import PgflowError

F = TypeVar("F", bound=Callable[..., Any])


def schema_option(command: F) -> F:
    """`--schema`, else PGFLOW_SCHEMA, else "pgflow"."""
    return click.option(
        "--schema", envvar="PGFLOW_SCHEMA", default="pgflow", show_default=True, help="The schema of pgflow's tables."
    )(command)


def database_options(command: F) -> F:
    """`--dsn`, else PGFLOW_DATABASE_URL; and the schema."""
    return click.option(
        "--dsn",
        envvar="PGFLOW_DATABASE_URL",
        required=True,
        help="The database: a postgresql:// URL or key=value words.",
    )(schema_option(command))


def audit_options(command: F) -> F:
    """`--actor`, else PGFLOW_ACTOR, else the database's role; and `--reason`."""
    who = click.option(
        "--actor",
        envvar="PGFLOW_ACTOR",
        help="Who is doing this, for `pgflow audit`; without, the database's role.",
    )
    why = click.option("--reason", envvar="PGFLOW_REASON", help="Why, for `pgflow audit`.")
    return who(why(command))


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show errors that the user can do something about, without a traceback.

    Raises:
        click.ClickException: instead of such an error; the command exits with 1.
    """
    try:
        yield
    except (psycopg.Error, PgflowError, ValueError) as error:
        raise click.ClickException(reason(error)) from error


def reason(error: Exception) -> str:
    """The message of an error, with what to do if the database cannot be reached."""
    said = str(error).strip()
    if isinstance(error, psycopg.OperationalError):
        return f"the database cannot be reached: {said}\nCheck --dsn or PGFLOW_DATABASE_URL."
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"{said}: the database's role may not do that. `pgflow db roles` grants what it needs."
    return said
