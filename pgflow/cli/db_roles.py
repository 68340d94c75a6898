"""`pgflow db roles`: what roles of the database may do, printed or granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pgflow.cli.database_options import database_options, readable_errors
from pgflow.store.schema.roles import KINDS, Grant, apply, plan

F = TypeVar("F", bound=Callable[..., Any])


def _names(kind: str, says: str) -> Callable[[F], F]:
    return click.option(f"--{kind}", multiple=True, metavar="ROLE", help=f"{says} May be given more than once.")


@click.command()
@database_options
@click.option("--payloads", is_flag=True, help="Readers see inputs, outputs, errors and bodies as well.")
@click.option("--apply", "execute", is_flag=True, help="Grant it, in one transaction, instead of printing it.")
@_names("worker", "A role for workers, and for clients that do everything.")
@_names("reader", "A role that looks.")
@_names("operator", "A role that operates workflows.")
@_names("sender", "A role that starts and signals workflows.")
def roles(dsn: str, schema: str, payloads: bool, execute: bool, **named: tuple[str, ...]) -> None:
    """Print what makes roles of the database a worker, a reader, an operator or a sender, or grant it (--apply).

    A worker runs workflows and cannot alter the schema. A reader looks at everything but payloads. An operator calls
    the functions that operate workflows, and a sender those that start and signal them, and nothing else. One role may
    be several of them. Whatever else these roles could do in the schema is taken from them. Without a role it is about
    those that were granted before: migrations do that by themselves, scripts of `pgflow db sql` do not.

    Example: pgflow db roles --worker shop_worker --reader grafana --operator kim --reader kim --apply
    """
    if payloads and not named["reader"]:
        raise click.UsageError("--payloads says what readers see: expected --reader ROLE beside it")
    grants = [Grant(role, kind, payloads and kind == "reader") for kind in KINDS for role in dict.fromkeys(named[kind])]
    with readable_errors():
        statements = (apply if execute else plan)(dsn, schema, grants)
    if execute:
        click.echo(f'the roles of the schema "{schema}" were granted their rights')
        return
    click.echo("".join(f"{statement};\n" for statement in ("BEGIN", *statements, "COMMIT")), nl=False)
