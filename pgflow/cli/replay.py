"""`pgflow replay module[:name] ...`: does the current code fit the stored histories? Made for a deployment
pipeline.

exit code 0: every history that was looked at fits
          1: some do not; each is told with its place, what was expected and what was found. Arguments that are not the
             recorded ones count, unless they are ignored
          2: they could not be checked (wrong arguments, a module that cannot be imported, no database)
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import click

from pgflow.cli import render
from pgflow.cli.database_options import database_options, readable_errors
from pgflow.cli.run_worker import workflows_of
from pgflow.client.filters import STATUSES
from pgflow.codec import class_name, message_of
from pgflow.definitions.descriptors import Registry, Workflow
from pgflow.errors import PgflowError
from pgflow.history.stored import StoredHistory
from pgflow.model.other_arguments import OtherArguments
from pgflow.store.database.connections import Database
from pgflow.store.queries.histories import COUNTED, ENDED, Histories
from pgflow.store.schema.compatibility import check_blocking
from pgflow.testing.replaying import replay as replay_one

FITS, DIVERGES, UNCHECKED = 0, 1, 2
"""Exit codes."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """A history that the current code does not fit."""

    workflow_id: UUID
    name: str
    status: str
    error: str
    location: str | None
    expected: str
    found: str
    message: str

    def line(self) -> str:
        """The divergence as a line of text."""
        where = f" at {self.location}" if self.location else ""
        return (
            f'{self.workflow_id} "{self.name}" ({self.status}): {self.error}{where}: expected {self.expected}, '
            f"found {self.found}"
        )


@dataclass(slots=True)
class Report:
    """The result of a check."""

    checked: int = 0
    partly: int = 0
    other_output: int = 0
    ignored_arguments: int = 0
    more: bool = False
    divergences: list[Divergence] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="MODULE[:NAME]...")
@database_options
@click.option("--name", "names", multiple=True, help="Only histories of workflows of this name; repeatable.")
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="Only those in this status; repeatable."
)
@click.option("--live", is_flag=True, help="Only workflows that may go on: all but completed and cancelled ones.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How many histories, at most: live workflows first, then the newest.",
)
@click.option(
    "--ignore-arguments",
    is_flag=True,
    help="Accept steps that are called with other arguments than the recorded ones.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def replay(
    targets: tuple[str, ...],
    dsn: str,
    schema: str,
    names: tuple[str, ...],
    statuses: tuple[str, ...],
    live: bool,
    limit: int,
    ignore_arguments: bool,
    as_json: bool,
) -> None:
    """Run the code of MODULE's workflows, or of those called NAME in it, over their stored histories.

    Only the workflows' own code is executed, and nothing is written. Exits with 0 when every history fits, with 1 when
    some do not, and with 2 when they could not be checked. Workflows that have ended are checked too, since live ones
    may have recorded the same steps by the time of the deployment; --live leaves them out.

    Example: pgflow replay shop.workflows --live --limit 1000
    """
    with _unchecked():
        wanted = statuses or STATUSES
        if live:
            wanted = tuple(status for status in wanted if status not in ENDED)
            if not wanted:
                raise click.UsageError(f"--live leaves nothing of --status {' --status '.join(statuses)}")
        registry = _import(targets)
        chosen = {name: registry.get(name) for name in names or registry.names if name in registry.names}
        if missing := sorted(set(names) - set(chosen)):
            raise click.UsageError(
                f"--name {missing[0]}: no such workflow in {', '.join(targets)}; expected one of "
                f"{', '.join(registry.names)}"
            )
        with (
            readable_errors(),
            Database(dsn, schema, application="pgflow replay").connect_blocking("cli") as connection,
        ):
            check_blocking(connection, schema)
            histories = Histories(connection, schema)
            report = check(histories, chosen, wanted, limit, ignore_arguments)
            report.unknown = {} if names else histories.others(registry.names)
    if as_json:
        click.echo(render.document(asdict(report)))
    else:
        _print(report, limit)
    sys.exit(DIVERGES if report.divergences else FITS)


def check(
    histories: Histories,
    workflows: Mapping[str, Workflow[Any, Any]],
    statuses: Sequence[str],
    limit: int,
    ignore_arguments: bool = False,
) -> Report:
    """Replay histories.

    Args:
        histories: where they are read from.
        workflows: the current code, by name.
        statuses: only workflows in one of these.
        limit: how many histories, at most.
        ignore_arguments: whether steps may have other arguments than the recorded ones.
    """
    report = Report()
    again: list[UUID] = []
    for history in histories.select(list(workflows), statuses, limit + 1):
        if report.checked == limit:
            report.more = True
            break
        divergence = _replay(workflows[history.name], history, report, ignore_arguments)
        report.checked += 1
        if divergence is None:
            continue
        if history.status == "running":
            again.append(history.id)
        else:
            report.divergences.append(divergence)
    # For a moment, a workflow that is failing has recorded the reason but not yet its end: look at it once more.
    for history in histories.read(again):
        divergence = _replay(workflows[history.name], history, report, ignore_arguments)
        if divergence is not None:
            report.divergences.append(divergence)
    return report


def _replay(
    workflow: Workflow[Any, Any], history: StoredHistory, report: Report, ignore_arguments: bool
) -> Divergence | None:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the code prints is not part of the output
            found = replay_one(workflow, history)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _divergence(history, error)
    report.partly += found.unreached > 0
    report.other_output += found.same_output is False
    if found.other_arguments and not ignore_arguments:
        return _of_arguments(history, found.other_arguments)
    report.ignored_arguments += bool(found.other_arguments)
    return None


def _of_arguments(history: StoredHistory, others: Sequence[OtherArguments]) -> Divergence:
    first = others[0]
    more = f", and so have {len(others) - 1} further steps" if len(others) > 1 else ""
    return Divergence(
        history.id,
        history.name,
        history.status,
        "OtherArguments",
        first.location,
        f"{first.step} with the recorded arguments {first.recorded:.200}",
        f"the arguments {first.given:.200}{more}",
        f"{first}{more}",
    )


def _divergence(history: StoredHistory, error: BaseException) -> Divergence:
    kind, message = class_name(error), message_of(error)
    location = expected = found = None
    if issubclass(type(error), PgflowError):
        location, expected, found = (getattr(error, name, None) for name in ("location", "expected", "found"))
    return Divergence(
        history.id,
        history.name,
        history.status,
        kind,
        location,
        expected or "code that goes on",
        found or f"{kind}: {message}",
        message,
    )


def _print(report: Report, limit: int) -> None:
    for divergence in report.divergences:
        click.echo(render.safe(divergence.line()).plain)
    fit = report.checked - len(report.divergences)
    wrong = len(report.divergences)
    click.echo(
        f"{report.checked} {'history' if report.checked == 1 else 'histories'} checked: {fit} "
        f"{'fits' if fit == 1 else 'fit'}, {wrong} {'does' if wrong == 1 else 'do'} not"
    )
    if report.partly:
        click.echo(f"{report.partly} of these could be checked only as far as a step that is new in the code")
    if report.other_output:
        click.echo(f"{report.other_output} of the completed ones would return something else now")
    if report.ignored_arguments:
        click.echo(f"{report.ignored_arguments} of these call recorded steps with other arguments, which were ignored")
    if report.more:
        click.echo(f"there are more than {limit}: --limit checks more of them")
    for name, count in report.unknown.items():
        number = f"{count} or more" if count == COUNTED else str(count)
        click.echo(render.safe(f'not checked: {number} of workflow "{name}", which is not in what was given').plain)
    if report.divergences:
        click.echo(
            "Workflows with such a history fail under this code. Put recorded steps back, stand `ctx.removed(...)` in "
            "their place, insert new ones with `ctx.v(n)`, or decide with `ctx.check_version(n)`. `pgflow workflow "
            "export ID` gives a history for `pgflow.testing.replay`."
        )


def _import(targets: Sequence[str]) -> Registry:
    try:
        return Registry(workflows_of(targets))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except BaseException as error:
        traceback.print_exc()
        raise click.ClickException(
            f"{', '.join(targets)} cannot be imported: {type(error).__name__}: {error}"
        ) from error


@contextlib.contextmanager
def _unchecked() -> Iterator[None]:
    """Exit with another code for what prevents a check than for what a check finds."""
    try:
        yield
    except click.UsageError:
        raise
    except click.ClickException as error:
        raise _Unchecked(error.message) from error
    except Exception as error:
        traceback.print_exc()
        raise _Unchecked(f"the histories could not be checked: {type(error).__name__}: {error}") from error


class _Unchecked(click.ClickException):
    exit_code = UNCHECKED
