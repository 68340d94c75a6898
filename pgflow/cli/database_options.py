"""What commands that work on a database share: the options that name it, and errors as people want to read them."""

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
        help="The database: a postgresql:// URL or key=value words. Else PGFLOW_DATABASE_URL.",
    )(schema_option(command))


def audit_options(command: F) -> F:
    """`--actor`, else PGFLOW_ACTOR, else the database's role; and `--reason`."""
    who = click.option(
        "--actor",
        envvar="PGFLOW_ACTOR",
        help="Who does it, for `pgflow audit`. Else PGFLOW_ACTOR, else the database's role.",
    )
    why = click.option("--reason", envvar="PGFLOW_REASON", help="Why, for `pgflow audit`. Else PGFLOW_REASON.")
    return who(why(command))


@contextmanager
def told() -> Iterator[None]:
    """Errors that a person can do something about, without a traceback.

    Raises:
        click.ClickException: in their place; the command exits with 1.
    """
    try:
        yield
    except (psycopg.Error, PgflowError, ValueError) as error:
        raise click.ClickException(reason(error)) from error


def reason(error: Exception) -> str:
    """What an error says, and what to do about a database that cannot be reached."""
    said = str(error).strip()
    if isinstance(error, psycopg.OperationalError):
        return f"the database cannot be reached: {said}\nCheck --dsn or PGFLOW_DATABASE_URL."
    return said
