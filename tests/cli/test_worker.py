"""`pgflow worker`: what it refuses to start with, and what it prints then. About 5 seconds; other tests show how it
works.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psycopg
import pytest
from click.testing import CliRunner

from pgflow.cli import main

ROOT = Path(__file__).parent.parent.parent
FLOWS = "tests.worker.flows"
NO_SERVER = "host=/nowhere dbname=x"
TWINS = """
import pgflow

@pgflow.workflow
async def checkout(ctx: pgflow.WorkflowContext) -> None: ...

@pgflow.workflow(name="checkout")
async def other(ctx: pgflow.WorkflowContext) -> None: ...

NONE = []
"""
PLAIN = """
import pgflow

@pgflow.workflow
def checkout(ctx: pgflow.WorkflowContext) -> None: ...
"""


def worker(*arguments: str, cwd: Path = ROOT) -> tuple[int, str]:
    """The exit code and what was said of a worker process that ends by itself."""
    command = [sys.executable, str(ROOT / "cli.py"), "worker", *arguments]
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert ran.stdout == ""
    return ran.returncode, ran.stderr


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the command says when it refuses to start, in this process."""
    monkeypatch.setattr("pgflow.cli.run_worker.configure", lambda level, form: None)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["worker", *arguments], prog_name="pgflow")
        assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
        assert result.output.startswith("Error: ")
        return result.output

    return run


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests.nowhere", "no module 'tests.nowhere' can be imported from"),
        ("json", "the module json has no workflow at its top level; expected functions under @pgflow.workflow"),
        (f"{FLOWS}:nothing", "tests.worker.flows:nothing is None; expected a workflow or a list of workflows"),
        (f"{FLOWS}:add", "expected a workflow or a list of workflows (made by @pgflow.workflow)"),
        (f"{FLOWS}:MARKS", "expected a workflow or a list of workflows (made by @pgflow.workflow)"),
    ],
)
def test_targets_that_are_none(refused: Callable[..., str], target: str, said: str) -> None:
    assert said in refused(target, "--dsn", NO_SERVER)


def test_two_workflows_of_one_name(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "twins.py").write_text(TWINS)
    monkeypatch.syspath_prepend(tmp_path)
    assert refused("twins", "--dsn", NO_SERVER) == (
        'Error: two workflows are called "checkout": twins.checkout and twins.other. Give one of them another name: '
        '@pgflow.workflow(name="...")\n'
    )
    assert "twins:NONE is []" in refused("twins:NONE", "--dsn", NO_SERVER)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--concurrency", "0"], "concurrency=0: expected a whole number, at least 1"),
        (["--lease", "0.5"], "lease=0.5: expected at least 1 seconds"),
        (["--lease", "nan"], "lease: expected a duration that is finite and not negative, found nan"),
        (["--payload-limit", "0"], "payload_limit=0: expected a whole number, at least 1"),
        (["--schema", ""], "'' cannot be the name of a pgflow schema"),
        (["--queue", ""], "queues=('',): expected at least one name"),
    ],
)
def test_settings_that_do_not_work(refused: Callable[..., str], options: list[str], said: str) -> None:
    assert said in refused(FLOWS, "--dsn", NO_SERVER, *options)


@pytest.mark.parametrize(
    ("level", "form", "said"),
    [
        ("loud", "human", "log level 'loud': expected debug, info, warning or error"),
        ("info", "prose", "log format 'prose': expected human or json"),
    ],
)
def test_logs_that_do_not_work(level: str, form: str, said: str) -> None:
    result = CliRunner().invoke(main, ["worker", FLOWS, "--dsn", NO_SERVER, "--log-level", level, "--log-format", form])
    assert result.exit_code == 1 and said in result.output


def test_a_workflow_that_is_not_async(tmp_path: Path) -> None:
    """An error in the user's own module keeps its traceback, which shows the line."""
    (tmp_path / "plain.py").write_text(PLAIN)
    code, told = worker("plain", "--dsn", NO_SERVER, cwd=tmp_path)
    assert code == 1 and "found a plain `def`" in told and "plain.py" in told


@pytest.mark.parametrize(
    ("dsn", "said"),
    [
        (NO_SERVER, "the database cannot be reached: .*Check --dsn or PGFLOW_DATABASE_URL"),
        ("nonsense", 'the DSN is not understood: missing "=" after.*expected a postgresql:// URL'),
    ],
)
def test_a_wrong_dsn(dsn: str, said: str) -> None:
    code, told = worker(FLOWS, "--dsn", dsn)
    assert code == 1 and re.search(said, told, re.DOTALL) and "Traceback" not in told


def test_several_processes_that_cannot_start() -> None:
    """That is the end: they are not started for ever."""
    code, told = worker(FLOWS, "--dsn", NO_SERVER, "--processes", "2")
    assert code == 1 and told.count("the database cannot be reached") >= 2


def test_a_database_that_is_not_migrated(database_dsn: str) -> None:
    code, told = worker(FLOWS, "--dsn", database_dsn, "--schema", "flows", "--log-format", "json")
    assert code == 1
    record = json.loads(told)
    assert record["level"] == "error" and "Run `pgflow db upgrade --schema flows`" in record["message"]
    with psycopg.connect(database_dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('flows')").fetchone() == (None,)


def test_a_workflow_that_another_decorator_hides(monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]) -> None:
    """It would be missing without a word."""
    module = ModuleType("hidden_flows")
    exec(
        "import functools\n"
        "import pgflow\n"
        "def logged(fn):\n"
        "    @functools.wraps(fn)\n"
        "    async def wrapper(*args): ...\n"
        "    return wrapper\n"
        "@pgflow.workflow\n"
        "async def seen(ctx): ...\n"
        "@logged\n"
        "@pgflow.workflow\n"
        "async def hidden(ctx): ...\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert "hidden_flows.hidden: @pgflow.workflow is below another decorator" in refused(
        "hidden_flows", "--dsn", NO_SERVER
    )
