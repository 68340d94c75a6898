"""`pgflow doctor`: what is wrong with the database, and what to do."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict

import click

from pgflow.cli.database_options import database_options, readable_errors
from pgflow.client.sync.client import SyncClient
from pgflow.model.diagnosis import Diagnosis, Finding

_COLOURS = {"info": "cyan", "warning": "yellow", "error": "red"}


@click.command()
@database_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
def doctor(dsn: str, schema: str, as_json: bool) -> None:
    """Look for what is wrong, and say what to do.

    It looks at versions, clocks, notifications, roles, poolers, what holds back vacuum, bloat, work that nobody takes,
    workers that are gone, dead letters, loops and histories. It only reads, takes a moment however much there is, and
    works on a hot standby.

    Exits with 1 when a person is needed: for a warning soon, for an error now.

    Example: pgflow doctor --dsn postgresql://reader@db/shop --json
    """
    with readable_errors(), ExitStack() as stack:
        client = SyncClient(dsn, schema, connections=1)
        stack.push(client)  # it is closed at the end, and not entered: a schema that does not fit is a finding
        diagnosis = client.doctor()
    if as_json:
        click.echo(
            json.dumps({"level": diagnosis.level, "checks": diagnosis.checks, "findings": _plain(diagnosis)}, indent=2)
        )
    else:
        for finding in diagnosis.findings:
            _show(finding)
        click.echo(_summary(diagnosis))
    if diagnosis.needs_person:
        raise SystemExit(1)


def _plain(diagnosis: Diagnosis) -> list[dict[str, object]]:
    return [asdict(finding) for finding in diagnosis.findings]


def _show(finding: Finding) -> None:
    click.secho(f"{finding.level}: {finding.check}: {finding.found}", fg=_COLOURS.get(finding.level))
    click.echo(f"  expected: {finding.expected}")
    if finding.where:
        click.echo(f"  where: {', '.join(finding.where)}")
    click.echo(f"  do: {finding.advice}\n")


def _summary(diagnosis: Diagnosis) -> str:
    made = f"{len(diagnosis.checks)} checks"
    if not diagnosis.findings:
        return f"{made}: nothing is wrong"
    levels = [finding.level for finding in diagnosis.findings]
    counts = ", ".join(f"{level}: {levels.count(level)}" for level in ("error", "warning", "info") if level in levels)
    return f"{made}; {counts}"
