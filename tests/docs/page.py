"""What a page's code blocks mean, and how they are run: the way a reader would, in order, in one directory.

    python   a file, when its first line is `# name.py`: it is written down; else a program, which is run
    console  `$ command` lines, run one after the other, each followed by the output it must have (`...`: anything)
    sql      statements, which another test runs
    text     for the eye alone

A command that ends with ` &` stays in the background until the page ends, or until `kill %N` or `kill -9 %N` ends the
Nth of them; when output is given for it, that is awaited,
and an `export` line in it is followed, as a reader would paste it. `export PGFLOW_DATABASE_URL=...` as a command is for
readers: the page's database is the test's. Of `make` the target must be there, of `pip install` the package must be
this one; neither is run here.
"""

from __future__ import annotations

import doctest
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LANGUAGES = ("console", "python", "sql", "text")
PATIENCE = 180.0
"""Seconds that a command may take before it counts as one that hangs."""

_BLOCK = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")
_OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
DATABASE = "PGFLOW_DATABASE_URL"


@dataclass
class Block:
    """One fenced block."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """All of them, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(found[1], found[2], text.count("\n", 0, found.start()) + 2) for found in _BLOCK.finditer(text)]


class Reader:
    """Somebody who does what a page says.

    Args:
        directory: where they do it.
        dsn: their database.
    """

    def __init__(self, directory: Path, dsn: str) -> None:
        self._directory = directory
        self._background: list[subprocess.Popen[bytes]] = []
        programs = directory / ".programs"
        programs.mkdir()
        for name, call in (("pgflow", f"{ROOT / 'cli.py'}"), ("python", "")):
            program = programs / name
            program.write_text(
                f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(call) if call else ""} "$@"\n'
            )
            program.chmod(0o755)
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PGFLOW_")}
        self._environment |= {
            DATABASE: dsn,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._written: set[str] = set()

    def follow(self, block: Block) -> None:
        """Do what one block says."""
        if block.language == "python":
            named = _FILE.match(block.text)
            name = named[1] if named else f"block_{block.line}.py"
            (self._directory / name).write_text(block.text)
            self._use(block.text)
            if named:
                self._written.add(name)
            else:
                self._run(f"python {name}", "...")
        elif block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, expected = part.partition("\n")
                self._use(command)
                self._run(command, expected)
        else:
            assert block.language == "text", f"line {block.line}: no test runs {block.language}"

    def end(self) -> None:
        """Stop what runs in the background; whatever was written down must have been used."""
        for number in range(len(self._background), 0, -1):
            if self._background[number - 1].returncode is None:
                self._kill(number, hard=False)
        assert not self._written, f"{self._written} are never used"

    def _kill(self, number: int, *, hard: bool) -> None:
        process = self._background[number - 1]
        process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        told, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == (-signal.SIGKILL if hard else 0), told.decode()

    def abandon(self) -> None:
        """Kill what is still in the background."""
        for process in self._background:
            process.kill()
            process.wait()

    def _use(self, text: str) -> None:
        self._written -= {name for name in self._written if re.search(rf"\b{name.removesuffix('.py')}\b", text)}

    def _run(self, command: str, expected: str) -> None:
        words = shlex.split(command, comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            if name != DATABASE:
                self._environment[name] = value
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command
        elif words[:2] == ["pip", "install"]:
            assert _is_ours(words[2]), command
        elif words[0] == "kill":
            self._kill(int(words[-1].removeprefix("%")), hard="-9" in words)
        elif words[-1] == "&":
            process = subprocess.Popen(
                words[:-1], cwd=self._directory, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            self._background.append(process)
            if expected.strip():
                self._paste(_await_output(process, expected))
        else:
            ran = subprocess.run(
                ["bash", "-c", command],
                cwd=self._directory,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            told = ran.stdout + ran.stderr
            assert ran.returncode == 0, f"$ {command}\n{told}"
            # A page shows what a program prints, and what it logs as well where that is the matter.
            fits = _fits(expected, ran.stdout) or _fits(expected, told)
            assert fits, f"$ {command}\n{told}\nwhere the page says\n{expected}"

    def _paste(self, told: str) -> None:
        for line in told.splitlines():
            if line.startswith("export "):
                name, _, value = shlex.split(line)[1].partition("=")
                self._environment[name] = value


def _is_ours(requirement: str) -> bool:
    """Whether what is to be installed is this package, with extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, _, extras = requirement.removesuffix("]").partition("[")
    return name == project["name"] and set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])


def _fits(expected: str, found: str) -> bool:
    return doctest.OutputChecker().check_output(expected, found, _OPTIONS) or not (expected.strip() or found.strip())


def _await_output(process: subprocess.Popen[bytes], expected: str) -> str:
    assert process.stdout is not None
    told = ""
    until = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not (told.endswith("\n") and _fits(expected, told)):
            assert selector.select(until - time.monotonic()), f"it says {told}\nwhere the page says\n{expected}"
            part = os.read(process.stdout.fileno(), 65536)
            assert part, f"it ended with {told}\nwhere the page says\n{expected}"
            told += part.decode()
    return told
