"""The options that say which database and schema a command works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

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
