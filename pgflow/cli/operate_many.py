"""What the commands that operate a workflow take instead of an id: filters, for many workflows at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from typing import Any, TypeVar
from uuid import UUID

import click

from pgflow.cli.filter_options import FILTERS, filter_options, filters_of
from pgflow.client.filters import BULK
from pgflow.model.info import BulkResult

F = TypeVar("F", bound=Callable[..., Any])

_SHOWN = 20
"""Refusals that are shown at most; `--json` has all."""


def bulk_options(command: F) -> F:
    """The filters, and how it is to be done."""
    options = (
        click.option(
            "--limit", type=click.IntRange(min=1), default=BULK, show_default=True, help="How many, the youngest first."
        ),
        click.option("--dry-run", is_flag=True, help="Do nothing, say what would be done."),
        click.option("--yes", is_flag=True, help="Do not ask before many are changed."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document about many, for programs."),
    )
    return filter_options(reduce(lambda wrapped, option: option(wrapped), reversed(options), command))


def is_one(id: UUID | None, asked: dict[str, Any]) -> bool:
    """Whether one workflow is named, and not a filter.

    Raises:
        click.UsageError: neither is, or both.
    """
    given = [key for key in FILTERS if asked[key]]
    if id is None and not given:
        raise click.UsageError("expected an ID, or which workflows: --name, --status, --tag, ... (see --help)")
    if id is not None and (given or asked["dry_run"]):
        raise click.UsageError("expected an ID or filters, found both; --dry-run is for filters")
    return id is not None


def operate_many(
    operation: Callable[..., BulkResult], verb: str, reason: str | None, *, yes: bool, as_json: bool, **asked: Any
) -> None:
    """Do it to all that the filters name, after asking, and say what became of it; exits with 1 if any was refused.

    Args:
        operation: the client's method, such as `client.cancel_many`.
        verb: what is done, such as "cancel".
    """
    asked = filters_of(**asked)
    dry_run = asked.pop("dry_run")
    if not (yes or dry_run):
        would = operation(**asked, dry_run=True, reason=reason)
        if would.done and not click.confirm(f"{verb} {_counted(would)}?", err=True):
            raise SystemExit(1)
    result = operation(**asked, dry_run=dry_run, reason=reason)
    if as_json:
        refused = {str(id): why for id, why in result.refused.items()}
        document = {"done": [str(id) for id in result.done], "refused": refused, "more": result.more}
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        click.echo(f"{'would ' if dry_run else ''}{verb}: {len(result.done)}, refused: {len(result.refused)}")
        for id, why in list(result.refused.items())[:_SHOWN]:
            click.echo(f"{id}: {why}", err=True)
        if len(result.refused) > _SHOWN:
            click.echo(f"... and {len(result.refused) - _SHOWN} more, which --json shows", err=True)
        if result.more:
            click.echo("There are more than --limit: do it again for the rest.", err=True)
    if result.refused:
        raise SystemExit(1)


def _counted(result: BulkResult) -> str:
    count = len(result.done)
    return f"{count} workflow{'' if count == 1 else 's'}{' (of more)' if result.more else ''}"
