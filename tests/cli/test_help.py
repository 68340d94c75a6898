"""What every command says of itself, and what the shell completes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

import pgflow
from pgflow.cli import main


def commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command that does something, with its name in parts."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, (*path, name))


ALL = dict(commands())
NAMES = sorted(ALL)


@pytest.mark.parametrize("path", NAMES, ids=" ".join)
def test_help_has_an_example_that_is_understood(path: tuple[str, ...]) -> None:
    """The example begins with this very command, and each of its options is one that there is."""
    shown = CliRunner().invoke(main, [*path, "--help"], prog_name="pgflow").output
    words = " ".join(shown.split())
    example = re.search(rf"Example: (pgflow {' '.join(path)}\b.*?)(?= Options:| [A-Z][a-z]+ [a-z]+ [a-z]+)", words)
    assert example is not None, shown
    options = {name for option in ALL[path].params for name in option.opts}
    assert set(re.findall(r"(?<= )--[a-z-]+", example[1])) <= options, example[1]


@pytest.mark.parametrize("path", NAMES, ids=" ".join)
def test_help_names_the_variables(path: tuple[str, ...]) -> None:
    shown = " ".join(CliRunner().invoke(main, [*path, "--help"], prog_name="pgflow").output.split())
    for option in ALL[path].params:
        if isinstance(option, click.Option) and option.envvar is not None:
            assert f"env var: {option.envvar}" in shown


def test_a_missing_setting_names_its_variable() -> None:
    result = CliRunner().invoke(main, ["workflow", "list"], env={"PGFLOW_DATABASE_URL": None}, prog_name="pgflow")
    assert result.exit_code == 2 and "'--dsn' (env var: 'PGFLOW_DATABASE_URL')" in result.output


def test_containers_set_everything_by_the_environment() -> None:
    """Each option of what runs in a container, and several queues."""
    for name in ("worker", "exporter"):
        command = ALL[(name,)]
        assert [o.name for o in command.params if isinstance(o, click.Option) and o.envvar is None] == []
    context = ALL[("worker",)]
    given = {"PGFLOW_WORKER_QUEUE": "mail slow", "PGFLOW_WORKER_LOG_FORMAT": "json", "PGFLOW_DATABASE_URL": "x"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in given.items():
            patch.setenv(key, value)
        params = context.make_context("worker", ["shop"]).params
    assert params["queues"] == ("mail", "slow") and params["log_format"] == "json" and params["dsn"] == "x"


def completed(dsn: str, *words: str) -> list[str]:
    """What Tab offers behind `pgflow ...`, the last word being incomplete."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGFLOW_DATABASE_URL", dsn)
        patch.delenv("PGFLOW_SCHEMA", raising=False)
        complete = BashComplete(main, {}, "pgflow", "_PGFLOW_COMPLETE")
        return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_ids_names_queues_and_statuses_are_completed(dsn: str) -> None:
    """An id by its beginning; a name, a queue, a status; what does not begin so is not offered."""
    with pgflow.SyncClient(dsn) as client:
        first, second = client.dispatch("checkout", queue="mail"), client.dispatch("Cheque")
        many = client.dispatch_many("remind", [{}] * 60)
    begin = str(first.id)[:-1]
    assert str(first.id) in completed(dsn, "workflow", "show", begin)
    assert completed(dsn, "workflow", "show", "zz") == [] and completed(dsn, "workflow", "cancel", "0" * 40) == []
    offered = completed(dsn, "workflow", "history", "")
    assert len(offered) == 50 and set(offered) <= {str(handle.id) for handle in (*many, first, second)}
    assert completed(dsn, "workflow", "list", "--name", "ch") == ["checkout"]
    assert sorted(completed(dsn, "workflow", "dispatch", "")) == ["Cheque", "checkout", "remind"]
    assert completed(dsn, "workflow", "list", "--queue", "m") == ["mail"]
    assert completed(dsn, "workflow", "list", "--status", "pa") == ["paused"]
    assert completed(dsn, "workflow", "list", "--status", "failed,ca") == ["failed,cancelled"]
    assert completed(dsn, "workflow", "retry", "--status", "pa") == ["paused"]


def test_without_a_database_nothing_is_offered() -> None:
    assert completed("host=/nowhere", "workflow", "show", "01") == []
    assert completed("what is this", "workflow", "show", "01") == []


def test_the_shell_asks_for_it(dsn: str) -> None:
    """As bash does."""
    with pgflow.SyncClient(dsn) as client:
        client.dispatch("checkout")
    given = {"_PGFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "pgflow workflow list --name c", "COMP_CWORD": "4"}
    environment = {**os.environ, **given, "PGFLOW_DATABASE_URL": dsn}
    program = "from pgflow.cli import main; main(prog_name='pgflow')"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["plain,checkout"] and done.stderr == ""
