"""`pgflow retention set | list | reset`: how long workflows are kept once they have ended."""

from __future__ import annotations

from datetime import timedelta

import click

from pgflow.cli import render
from pgflow.cli.database_options import audit_options, database_options, readable_errors
from pgflow.cli.durations import Duration, shown
from pgflow.client.sync.client import SyncClient

_name = click.argument("name")


@click.group()
def retention() -> None:
    """Say how long workflows are kept once they have ended, and see what is said."""


@retention.command("set")
@_name
@click.option("--keep", type=Duration(forever=True), help="After they completed or were cancelled: 12h, 30d, forever.")
@click.option("--failed", type=Duration(forever=True), help="After they failed, likewise.")
@click.option("--missing-ok", is_flag=True, help="Even if no workflow of this name was ever dispatched.")
@database_options
@audit_options
def set_(
    name: str,
    keep: timedelta | None,
    failed: timedelta | None,
    missing_ok: bool,
    dsn: str,
    schema: str,
    actor: str | None,
    reason: str | None,
) -> None:
    """Say how long workflows called NAME are kept; "*" is for all that have nothing of their own.

    What is not given stays as it is. Failed ones stay for ever unless --failed says otherwise.

    Example: pgflow retention set newsletter --keep 30d --failed 365d
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1, actor=actor) as client:
        client.retention.set(name, keep=keep, failed=failed, missing_ok=missing_ok, reason=reason)


@retention.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
@database_options
def list_(as_json: bool, dsn: str, schema: str) -> None:
    """Show what is said of each name. An operator's word for it goes first, then its code's, then what is set for "*".

    Example: pgflow retention list --json
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1) as client:
        rules = client.retention.list()
    if as_json:
        click.echo(render.document(rules))
        return
    for rule in rules:
        click.echo(f"{rule.name}: keep {shown(rule.keep)}, failed {shown(rule.failed)} ({rule.set_by})")


@retention.command()
@_name
@database_options
@audit_options
def reset(name: str, dsn: str, schema: str, actor: str | None, reason: str | None) -> None:
    """Take back what was set for NAME; exits with 1 when nothing was.

    Example: pgflow retention reset newsletter
    """
    with readable_errors(), SyncClient(dsn, schema, connections=1, actor=actor) as client:
        if not client.retention.reset(name, reason=reason):
            click.echo(f"nothing was set for {name}", err=True)
            raise SystemExit(1)
