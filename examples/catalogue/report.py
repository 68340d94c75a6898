"""The report of the demo, read from the database with plain SQL."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table

TOTALS = """
SELECT sum((output->>'files')::int), sum((output->>'lines')::int), sum((output->>'functions')::int),
       sum((output->>'classes')::int), sum((output->>'undocumented')::int), count(*)
FROM pgflow.workflow_overview WHERE name = 'describe' AND status = 'completed'
"""
ONCE = """
SELECT count(*), count(DISTINCT input->>'file') FROM pgflow.history WHERE name = 'summarise' AND status = 'completed'
"""
INTERRUPTED = """
SELECT w.input->>'package', a.file, h.at, a.process, b.process, round(extract(epoch FROM b.begun - a.begun)::numeric, 1)
FROM public.attempts AS a
JOIN public.attempts AS b ON b.workflow_id = a.workflow_id AND b.file = a.file AND b.process <> a.process
    AND b.begun > a.begun
JOIN pgflow.history AS h ON h.workflow_id = a.workflow_id AND h.input->>'file' = a.file
JOIN pgflow.workflows AS w ON w.id = a.workflow_id
WHERE a.process = %s
ORDER BY 1, h.location
"""
ONE_HISTORY = """
SELECT at, kind, name, status, attempts, coalesce(input->>'file', input->>'package', ''),
       to_char(completed_at, 'HH24:MI:SS.MS')
FROM pgflow.history
WHERE workflow_id = (SELECT id FROM pgflow.workflows WHERE name = 'describe' AND input->>'package' = 'json')
ORDER BY location
"""
FORGOTTEN = """
SELECT at, iteration, name, input->>'package', forgotten FROM pgflow.history
WHERE workflow_id = %s ORDER BY location
"""
NAMES = ("files", "lines", "functions", "classes", "without a docstring")


def report(
    console: Console,
    connection: psycopg.Connection[Any],
    catalogue: uuid.UUID,
    expected: tuple[int, ...],
    killed: int | None,
    seconds: float,
) -> bool:
    """Print the report; whether the catalogue is right."""
    *found, packages = _rows(connection, TOTALS)[0]
    counted, distinct = _rows(connection, ONCE)[0]
    interrupted = _rows(connection, INTERRUPTED, [killed])
    right = tuple(found) == expected and counted == distinct == expected[0] and len(interrupted) > 0
    table = Table(title=f"The catalogue: {packages} packages and modules in {seconds:.0f} s", title_justify="left")
    for name in ("", "pgflow", "counted without pgflow", ""):
        table.add_column(name, justify="right" if name else "left")
    for name, mine, other in zip(NAMES, found, expected, strict=True):
        table.add_row(name, f"{mine:,}", f"{other:,}", "[green]equal[/]" if mine == other else "[red]DIFFERENT[/]")
    console.print(table)
    console.print(f"{counted:,} results of `summarise`, {distinct:,} different files: every file counted once.\n")
    _interrupted(console, interrupted)
    _history(console, connection)
    _forgotten(console, connection, catalogue)
    return right


def _interrupted(console: Console, rows: list[Any]) -> None:
    console.print(f"The crash interrupted {len(rows)} activities; each was begun again by the other worker:")
    table = Table(box=None, padding=(0, 2))
    for name in ("package", "file", "location", "process killed", "resumed by", "after"):
        table.add_column(name)
    for package, file, at, before, after, waited in rows[:6]:
        table.add_row(package, file, at, str(before), str(after), f"{waited} s")
    console.print(table)
    if len(rows) > 6:
        console.print(f"  ... and {len(rows) - 6} more")
    console.print()


def _history(console: Console, connection: psycopg.Connection[Any]) -> None:
    table = Table(title="One workflow's history: describe('json')", title_justify="left")
    for name in ("location", "kind", "name", "status", "attempts", "input", "completed"):
        table.add_column(name)
    for row in _rows(connection, ONE_HISTORY):
        table.add_row(*map(str, row))
    console.print(table)


def _forgotten(console: Console, connection: psycopg.Connection[Any], catalogue: uuid.UUID) -> None:
    rows = _rows(connection, FORGOTTEN, [catalogue])
    forgotten = [row for row in rows if row[4]]
    console.print(
        f"\nThe loop that walked the packages has {len(rows) - len(forgotten)} active rows left, and {len(forgotten)} "
        "forgotten ones, kept for you to read:"
    )
    table = Table(box=None, padding=(0, 2))
    for name in ("location", "iteration", "activity", "package"):
        table.add_column(name)
    for at, iteration, name, package, _ in [*forgotten[:3], *forgotten[-3:]]:
        table.add_row(at, str(iteration), name, package)
    console.print(table)


def _rows(connection: psycopg.Connection[Any], query: str, values: list[Any] | None = None) -> list[Any]:
    return connection.execute(query.encode(), values).fetchall()
