"""The workflows of the catalogue: one that walks the packages in turns, and one for each package.

PGFLOW_DATABASE_URL=... pgflow worker examples.catalogue.flows
"""

from __future__ import annotations

import ast
import asyncio
import os
import sysconfig
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

import psycopg

import pgflow

LIBRARY = Path(os.environ.get("CATALOGUE_DIRECTORY") or sysconfig.get_path("stdlib"))
SKIPPED = {"site-packages", "__pycache__", "lib-dynload"}


@dataclass
class Summary:
    """What a file, or a package, holds."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    undocumented: int = 0

    def __add__(self, other: Summary) -> Summary:
        return Summary(
            self.files + other.files,
            self.lines + other.lines,
            self.functions + other.functions,
            self.classes + other.classes,
            self.undocumented + other.undocumented,
        )


@pgflow.activity
def find_packages(ctx: pgflow.ActivityContext) -> list[str]:
    """The top-level packages and modules, by name."""
    found = []
    for entry in LIBRARY.iterdir():
        if entry.suffix == ".py" or (entry.is_dir() and entry.name not in SKIPPED and any(entry.rglob("*.py"))):
            found.append(entry.name)
    return sorted(found)


@pgflow.activity
def find_files(ctx: pgflow.ActivityContext, package: str) -> list[str]:
    """The files of a package, relative to the library."""
    place = LIBRARY / package
    if place.is_file():
        return [package]
    return sorted(str(file.relative_to(LIBRARY)) for file in place.rglob("*.py"))


@pgflow.activity
def summarise(ctx: pgflow.ActivityContext, file: str) -> Summary:
    """Parse one file and count what it holds."""
    note_attempt(ctx, file)
    source = (LIBRARY / file).read_bytes()
    found = Summary(files=1, lines=source.count(b"\n"))
    try:
        with _parsing:
            tree = ast.parse(source)
    except (SyntaxError, ValueError):  # the library's own tests hold files that are wrong on purpose
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions += 1
        elif isinstance(node, ast.ClassDef):
            found.classes += 1
        else:
            continue
        found.undocumented += ast.get_docstring(node, clean=False) is None
    return found


@pgflow.activity
def start_package(ctx: pgflow.ActivityContext, package: str) -> str:
    """Start the workflow of one package. Its id is made of the package's name: twice is once."""
    with pgflow.SyncClient(os.environ["PGFLOW_DATABASE_URL"]) as client:
        id = uuid.uuid5(ctx.workflow_id, package)
        return str(client.dispatch(describe, package, id=id, tags={"walk": str(ctx.workflow_id)}).id)


@pgflow.workflow
async def describe(ctx: pgflow.WorkflowContext, package: str) -> Summary:
    """One package: find its files, summarise them all at once, add up."""
    files = await ctx.activity(find_files, package)
    found = await asyncio.gather(*[ctx.activity(summarise, file) for file in files])
    return sum(found, Summary())


@pgflow.workflow
async def walk(ctx: pgflow.WorkflowContext) -> int:
    """All packages, one a turn. The turns that have ended leave active history by twenties."""
    packages = await ctx.activity(find_packages)

    async def turn(ctx: pgflow.WorkflowContext, done: int) -> pgflow.Continue[int] | pgflow.Break[int]:
        if done == len(packages):
            return pgflow.Break(done)
        await ctx.activity(start_package, packages[done])
        return pgflow.Continue(done + 1)

    return await ctx.loop(turn, 0, commit_interval=20, keep_iterations=60)


_parsing = threading.Lock()  # on Python 3.11 two threads that parse at once can fail with a SystemError
_attempts = threading.local()


def note_attempt(ctx: pgflow.ActivityContext, file: str) -> None:
    """Write down, beside pgflow, that this process has begun this activity: the report tells what the crash cost."""
    if not hasattr(_attempts, "connection"):
        _attempts.connection = psycopg.connect(os.environ["PGFLOW_DATABASE_URL"], autocommit=True)
    _attempts.connection.execute(
        "INSERT INTO attempts (workflow_id, file, process) VALUES (%s, %s, %s)", (ctx.workflow_id, file, os.getpid())
    )
