"""The options by which commands say which workflows they are about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, TypeVar

import click

from pgflow.cli.completion import QUEUE, WORKFLOW_ID, WORKFLOW_NAME, complete_statuses
from pgflow.client.filters import STATUSES

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(given: str) -> datetime:
    """A moment: a day, a day and a time, or how long ago it was. UTC unless it has an offset."""
    ago = re.fullmatch(r"(\d{1,6})([smhdw])", given)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        found = datetime.fromisoformat(given)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{given!r}: expected a moment, such as 2026-11-30 or 2026-11-30T22:15, or an age, such as 90m or 7d"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _statuses(given: str) -> list[str]:
    """A status, or several with commas between them."""
    found = [one.strip() for one in given.split(",")]
    for one in found:
        if one not in STATUSES:
            raise click.BadParameter(f"{one!r} is not one of {', '.join(map(repr, STATUSES))}")
    return found


def tag(given: str) -> tuple[str, Any]:
    """The name and the value of a tag: a number, true, false, null, or else a text."""
    name, sign, text = given.partition("=")
    if not name or not sign:
        raise click.BadParameter(f"{given!r}: expected NAME=VALUE", param_hint="--tag")
    try:
        value = json.loads(text)
    except ValueError:
        return name, text
    return name, text if isinstance(value, dict | list) else value


FILTERS = (
    "name",
    "statuses",
    "tags",
    "queue",
    "parent_id",
    "error_type",
    "waiting_for",
    "created_after",
    "created_before",
    "ended_after",
    "ended_before",
)
"""The parameters that the options give to a command."""

_OPTIONS = (
    click.option("--name", type=WORKFLOW_NAME, help="Only workflows of this name."),
    click.option(
        "--status",
        "statuses",
        type=_statuses,
        shell_complete=complete_statuses,
        metavar="STATUS",
        multiple=True,
        help=f"Only those in this status: {', '.join(STATUSES)}; repeatable, or with commas.",
    ),
    click.option(
        "--tag",
        "tags",
        multiple=True,
        metavar="NAME=VALUE",
        help='Only those with this tag; repeatable. The value is a number, true, false, null, or else a text ("7" in '
        "quotes is one).",
    ),
    click.option("--queue", type=QUEUE, help="Only those of this queue, also of what has ended."),
    click.option("--parent", "parent_id", type=WORKFLOW_ID, help="Only children of this workflow."),
    click.option("--error-type", help="Only those that failed with an error of this type, such as ConnectionError."),
    click.option("--waiting-for", metavar="SIGNAL", help="Only those that wait for a signal of this name."),
    click.option(
        "--created-after",
        type=_moment,
        metavar="MOMENT",
        help="Only those dispatched then or later: 2026-11-30, 2026-11-30T22:15, or how long ago, such as 90m or 7d.",
    ),
    click.option("--created-before", type=_moment, metavar="MOMENT", help="Only those dispatched before then."),
    click.option("--ended-after", type=_moment, metavar="MOMENT", help="Only those that ended then or later."),
    click.option("--ended-before", type=_moment, metavar="MOMENT", help="Only those that ended before then."),
)


def filter_options(command: F) -> F:
    """All filters of a list."""
    return reduce(lambda wrapped, option: option(wrapped), reversed(_OPTIONS), command)


def filters_of(statuses: tuple[list[str], ...], tags: tuple[str, ...], **asked: Any) -> dict[str, Any]:
    """What the options say, as `Filter` takes it."""
    given = [one for several in statuses for one in several]
    return {"status": given or None, "tags": dict(map(tag, tags)) or None, **asked}
