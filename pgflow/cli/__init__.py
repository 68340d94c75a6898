"""The `pgflow` command. One file for each command group; a group's module is imported when the group is used.

    pgflow worker:  one process, or a supervisor (`supervisor.py`) that starts several, starts another when one dies,
                    and stops them together;  SIGTERM --> the worker hands back --> ended, within its grace period
                    in any case (`process_end.py`)

Exit codes: 0 done, 1 refused or failed (a history does not fit, for `pgflow replay`), 2 used wrongly, 70 a worker that
had to be ended.
"""

from __future__ import annotations

import importlib

import click

from pgflow.version import VERSION

_COMMANDS = {
    "audit": ("pgflow.cli.audit", "audit", "Show what operators did."),
    "db": ("pgflow.cli.db", "db", "Create and migrate the schema."),
    "dev": ("pgflow.cli.dev", "dev", "Run workflows on an embedded PostgreSQL, to try things out."),
    "doctor": ("pgflow.cli.doctor", "doctor", "Look for what is wrong with the database, and say what to do."),
    "exporter": ("pgflow.cli.exporter", "exporter", "Serve metrics of the database."),
    "prune": ("pgflow.cli.prune", "prune", "Remove workflows that ended long ago."),
    "queue": ("pgflow.cli.queue_commands", "queue", "Show what waits in queues."),
    "replay": ("pgflow.cli.replay", "replay", "Check that the current code fits the stored histories."),
    "retention": ("pgflow.cli.retention_group", "retention", "Say how long ended workflows are kept."),
    "signal": ("pgflow.cli.signals", "signal", "Show signals that no workflow could read, and settle them."),
    "worker": ("pgflow.cli.run_worker", "worker", "Run workflows."),
    "workers": ("pgflow.cli.workers", "workers", "Show the workers."),
    "workflow": ("pgflow.cli.workflow", "workflow", "Show workflows, and operate them."),
}


_PREFIXES = {"exporter": "PGFLOW_EXPORTER", "worker": "PGFLOW_WORKER"}
"""Commands that run in containers: each of their options can be given by the environment as well."""


def _name_variables(command: click.Command, prefix: str | None) -> None:
    """Have the help and the errors name the environment variables of options.

    Args:
        prefix: Options without a variable get one that begins so: `--log-level` PGFLOW_WORKER_LOG_LEVEL.
    """
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        if option.envvar is None and prefix is not None and option.expose_value:
            word = max(option.opts, key=len).lstrip("-").replace("-", "_").upper()
            option.envvar = f"{prefix}_{word}"
        option.show_envvar = option.envvar is not None
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _name_variables(one, prefix)


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name, _ = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        _name_variables(command, _PREFIXES.get(cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table above: nothing is imported to print a list.
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in sorted(_COMMANDS.items())])


@click.group(cls=_Lazy)
@click.version_option(VERSION, prog_name="pgflow")
def main() -> None:
    """Durable workflows on nothing but PostgreSQL."""
