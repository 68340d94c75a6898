"""The live picture of the demo: workflows by status, files, steps a second, the workers."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import psycopg
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

STATE = """
SELECT
    (SELECT count(*) FROM pgflow.history WHERE status = 'completed') AS steps,
    (SELECT count(*) FROM pgflow.history WHERE status = 'completed' AND name = 'summarise') AS files,
    (SELECT json_object_agg(status, n) FROM (
        SELECT status, count(*) AS n FROM pgflow.workflow_overview GROUP BY status) AS s) AS statuses,
    (SELECT json_object_agg(worker_pid, n) FROM (
        SELECT worker_pid, count(*) AS n FROM pgflow.workflow_overview
        WHERE status = 'running' AND worker_pid IS NOT NULL GROUP BY worker_pid) AS s) AS held,
    (SELECT count(*) = 0 FROM pgflow.runs)
        AND EXISTS (SELECT FROM pgflow.workflows WHERE name = 'walk' AND status = 'completed') AS ended
"""


@dataclass
class State:
    """What the database says at one moment."""

    steps: int
    files: int
    statuses: dict[str, int]
    held: dict[str, int]
    ended: bool


class Picture:
    """Reads the database and draws it."""

    def __init__(self, connection: psycopg.Connection[Any], processes: list[int], expected: int) -> None:
        self._connection = connection
        self._processes = dict.fromkeys(processes, "alive")
        self._expected = expected
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque(maxlen=12)
        self._killed_at: float | None = None

    def killed(self, process: int) -> None:
        """A worker has been killed just now."""
        self._processes[process] = "killed"
        self._killed_at = time.monotonic() - self._began

    def read(self) -> State:
        """One look at the database."""
        row = self._connection.execute(STATE).fetchone()
        assert row is not None
        state = State(row[0], row[1], row[2] or {}, row[3] or {}, row[4])
        self._recent.append((time.monotonic(), state.steps))
        return state

    def draw(self, state: State) -> RenderableType:
        """The state as a picture."""
        (first, before), (last, now) = self._recent[0], self._recent[-1]
        rate = (now - before) / (last - first) if last > first else 0.0
        table = Table(box=None, show_header=False, padding=(0, 2))
        statuses = "   ".join(f"{name} [bold]{n}[/]" for name, n in sorted(state.statuses.items()))
        table.add_row("workflows", statuses)
        table.add_row("files", ProgressBar(total=self._expected, completed=state.files, width=44))
        table.add_row("", f"{state.files:,} of {self._expected:,}   {rate:,.0f} steps/s   {last - self._began:.1f} s")
        for number, (process, how) in enumerate(self._processes.items(), 1):
            held = state.held.get(str(process), 0)
            if how == "alive":
                line = Text(f"process {process}, runs {held} workflows", style="green")
            else:
                line = Text(f"process {process}, KILLED after {self._killed_at:.1f} s", style="bold red")
                line.append(
                    f"; still in its name: {held} workflows" if held else "; all it held goes on elsewhere", "yellow"
                )
            table.add_row(f"worker {number}", line)
        return Group(table)
