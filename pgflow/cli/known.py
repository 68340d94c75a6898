"""What `pgflow workflow dispatch` refuses: names that no live worker knows, and arguments that do not fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import click
from psycopg.errors import InsufficientPrivilege

from pgflow.client.sync.client import SyncClient
from pgflow.definitions.schemas import misfit
from pgflow.errors import PgflowError

MANY = 10_000
"""The most workers, and definitions, that are looked at."""


def check_known(client: SyncClient, name: str, arguments: Mapping[str, Any], queue: str) -> None:
    """Refuse a name that no live worker knows, and arguments that certainly do not fit it.

    Of several builds the newest counts. Nothing is refused where no worker runs, nor where one runs that does not say
    what it knows, nor by a role that may not read the table `workers`.

    Raises:
        click.ClickException: so it is; nothing was started.
    """
    try:
        known = client.definitions(name, limit=MANY)
        if not known:
            _check_name(client, name)
            return
    except PgflowError as error:
        if isinstance(error.__context__ or error.__cause__, InsufficientPrivilege):
            return
        raise
    serving = [one for one in known if one.queue == queue]
    if not serving:
        served = ", ".join(sorted({one.queue for one in known}))
        click.echo(f'No live worker that knows "{name}" serves the queue "{queue}"; they serve {served}.', err=True)
    newest = (serving or known)[0]
    problem = misfit(dict(arguments), newest.arguments)
    if problem is not None:
        build = "" if newest.build is None else f" of build {newest.build}"
        raise click.ClickException(
            f'the arguments do not fit the workflow "{name}" as the workers{build} know it: {problem}. Nothing was '
            "started; --unchecked starts it all the same."
        )


def _check_name(client: SyncClient, name: str) -> None:
    alive = [one for one in client.workers(limit=MANY) if one.alive]
    names = {one.name for one in client.definitions(limit=MANY)}
    if not alive or any(one.names is None for one in alive):
        return
    close = difflib.get_close_matches(name, names, 1)
    advice = f'is it meant to be "{close[0]}"?' if close else f"they know {', '.join(sorted(names)[:20])}."
    raise click.ClickException(
        f'none of the live workers knows a workflow called "{name}"; {advice} Nothing was started; --unchecked starts '
        "it all the same."
    )
