"""Writes what was measured: a table for people (Markdown) and the values of every run for programs (JSON)."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, shown


class Report:
    """Gathers figures by scenario.

    Args:
        results: the directory to write to.
        server_version: of the PostgreSQL that was measured on.
        quick: whether the numbers are good for nothing but to see that the benchmarks work.
    """

    def __init__(self, results: Path, server_version: str, quick: bool) -> None:
        self._results = results
        self._scenarios: dict[str, list[Figure]] = {}
        self._machine = {
            "when": time.strftime("%Y-%m-%d %H:%M:%S"),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "psycopg": psycopg.__version__,
            "postgresql": server_version,
            "quick": quick,
        }

    def add(self, scenario: str, figures: list[Figure]) -> None:
        """Take a scenario's figures, print them, and write all so far: an interrupted run keeps what it has."""
        self._scenarios[scenario] = figures
        table = Table(title=scenario, title_justify="left", show_edge=False)
        for column in ("figure", "median", "unit", "runs"):
            table.add_column(column, justify="right" if column == "median" else "left")
        for figure in figures:
            table.add_row(figure.name, shown(figure.median), figure.unit, _runs(figure))
        Console(width=120).print(table, "")
        self._write()

    def _write(self) -> None:
        values = {
            name: [
                {"name": figure.name.strip(), "unit": figure.unit, "median": figure.median, "runs": list(figure.values)}
                for figure in figures
            ]
            for name, figures in self._scenarios.items()
        }
        told = json.dumps({"machine": self._machine, "scenarios": values}, indent=1)
        (self._results / "report.json").write_text(told + "\n")
        lines = ["# Benchmarks", "", ", ".join(f"{name} {value}" for name, value in self._machine.items()), ""]
        for name, figures in self._scenarios.items():
            lines += [f"## {name}", "", "| figure | median | unit | runs | note |", "| --- | ---: | --- | --- | --- |"]
            lines += [
                f"| {figure.name} | {shown(figure.median)} | {figure.unit} | {_runs(figure)} | {figure.note} |"
                for figure in figures
            ]
            lines.append("")
        (self._results / "report.md").write_text("\n".join(lines))


def _runs(figure: Figure) -> str:
    return " ".join(shown(value) for value in figure.values) if len(figure.values) > 1 else ""
