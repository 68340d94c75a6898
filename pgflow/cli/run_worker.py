"""`pgflow worker module[:name] ...`: runs workflows until SIGTERM or SIGINT, in one process or in several."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import FunctionType, ModuleType
from typing import Any, NoReturn, TypeVar

import click
import psycopg

from pgflow.cli.database_options import database_options, reason
from pgflow.cli.logs import configure
from pgflow.cli.process_end import Ending, leave_at_once
from pgflow.cli.supervisor import OWNER, READY, REPORTS, supervise
from pgflow.codec import described
from pgflow.definitions.descriptors import Workflow
from pgflow.definitions.functions import layers
from pgflow.errors import LifespanFailed, PgflowError
from pgflow.store.exchange.sweeping import AUDIT_KEEP
from pgflow.worker.lifespan import LifespanFunction, checked_lifespan
from pgflow.worker.observation import to_supervisor
from pgflow.worker.worker import Worker

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("pgflow.worker")


def lifespan_option(command: F) -> F:
    """`--lifespan`, else PGFLOW_LIFESPAN."""
    return click.option(
        "--lifespan",
        envvar="PGFLOW_LIFESPAN",
        metavar="MODULE:NAME",
        help="The function whose async context manager yields what `ctx.resource` of activities finds.",
    )(command)


@click.command()
@click.argument("targets", nargs=-1, required=True, metavar="MODULE[:NAME]...")
@database_options
@click.option(
    "--queue", "queues", multiple=True, default=("default",), show_default=True, help="A queue to serve; repeatable."
)
@click.option("--concurrency", default=1000, show_default=True, help="Workflows in memory at once, a process.")
@click.option("--processes", default=1, show_default=True, help="Processes; each uses one core.")
@click.option("--threads", default=32, show_default=True, help="Plain activity functions at once, a process.")
@click.option("--transactions", default=10, show_default=True, help="Transactional activities at once, a process.")
@click.option(
    "--lease", default=15.0, show_default=True, help="Seconds until a silent worker's workflows are taken over."
)
@click.option(
    "--grace", default=10.0, show_default=True, help="Seconds that running activities may go on after SIGTERM."
)
@click.option("--payload-limit", default=1 << 20, show_default=True, help="The largest payload, in bytes of JSON.")
@click.option(
    "--strict",
    is_flag=True,
    help="Fail workflows that call a step with other arguments than the recorded ones.",
)
@click.option(
    "--max-crashes",
    default=5,
    show_default=True,
    help="How many processes one workflow's code may kill before the workflow fails.",
)
@click.option(
    "--signal-keep", default=86_400.0, show_default=True, help="Seconds that a signal is kept after it was taken."
)
@click.option(
    "--audit-keep", default=AUDIT_KEEP, show_default=True, help="Seconds that a row of `pgflow audit` is kept."
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65_535),
    envvar="PGFLOW_METRICS_PORT",
    help="Serve /metrics, /livez and /readyz at this port, for all processes together; without, nowhere.",
)
@click.option(
    "--metrics-host",
    envvar="PGFLOW_METRICS_HOST",
    default="0.0.0.0",
    show_default=True,
    help="The address of that port.",
)
@click.option(
    "--build",
    envvar="PGFLOW_BUILD",
    help="The version of the application, such as 2026.11.30-1: workers of older ones leave work to it. Else "
    "PGFLOW_BUILD.",
)
@lifespan_option
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
@click.option("--log-format", default="human", show_default=True, help="human or json.")
def worker(
    targets: tuple[str, ...],
    dsn: str,
    schema: str,
    queues: tuple[str, ...],
    concurrency: int,
    processes: int,
    threads: int,
    transactions: int,
    lease: float,
    grace: float,
    payload_limit: int,
    strict: bool,
    max_crashes: int,
    signal_keep: float,
    audit_keep: float,
    metrics_port: int | None,
    metrics_host: str,
    build: str | None,
    lifespan: str | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run the workflows of MODULE, or the one (or the list) called NAME in it.

    SIGTERM or SIGINT: claims no more, lets running activities end for the grace period, hands everything back.

    Example: pgflow worker shop.workflows --queue default --queue mail --processes 4
    """
    try:
        configure(log_level, log_format)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    found = workflows_of(targets)  # an error in the user's own module keeps its traceback
    shared = lifespan_of(lifespan)
    if processes > 1:
        try:
            sys.exit(supervise(processes, grace, None if metrics_port is None else (metrics_host, metrics_port)))
        except PgflowError as error:
            raise click.ClickException(str(error)) from error
    reports = os.environ.pop(REPORTS, None)  # else the supervisor has the port
    try:
        made = Worker(
            dsn,
            workflows=found,
            queues=queues,
            concurrency=concurrency,
            lease=lease,
            schema=schema,
            threads=threads,
            transactions=transactions,
            grace=grace,
            payload_limit=payload_limit,
            strict=strict,
            max_crashes=max_crashes,
            signal_keep=signal_keep,
            audit_keep=audit_keep,
            metrics_port=metrics_port if reports is None else None,
            metrics_host=metrics_host,
            build=build,
            lifespan=shared,
        )
    except (ValueError, TypeError) as error:
        raise click.ClickException(str(error)) from error
    if reports is not None:
        made.observation = made.observation.anew(to_supervisor(int(reports)))
    spare_collector()
    leave(run_through(serve(made, grace)))


def spare_collector() -> None:
    """Let the garbage collector run less often, and leave out what was there from the start.

    A thousand workflows in memory are many young objects that live for a few batches: by default the collector would go
    through them again and again, for a quarter of the worker's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def run_through(main: Coroutine[Any, Any, int]) -> int:
    """Like `asyncio.run`, but a `SystemExit` in a task that an activity has started ends that task alone.

    asyncio lets a `SystemExit` of any task out of the loop, after the task has stored it. Whoever awaits the task gets
    it from there.
    """
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        task = loop.create_task(main)
        while True:
            try:
                return loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done() or signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    raise
                log.error("a task that an activity started raised %s; the worker goes on", described(error))


def leave(code: int) -> NoReturn:
    """End this process after its worker has ended."""
    # Threads of plain activities that outlived the grace period would keep the process alive; their workflows are
    # handed back already, and another worker repeats the attempts.
    logging.shutdown()
    sys.stderr.flush()
    if any(thread.name.startswith("pgflow activity") for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


async def serve(made: Worker, grace: float = 10.0) -> int:
    """Run a worker until SIGTERM, SIGINT or the end of the process that supervises it; returns the exit code."""
    loop = asyncio.get_running_loop()
    Ending(made.stop, grace)
    made.when_hopeless = lambda: leave_at_once("a workflow's code blocks the event loop for good")
    owner = os.environ.pop(OWNER, None)
    if owner is not None:

        def orphaned() -> None:
            loop.remove_reader(int(owner))
            made.stop()

        # Nothing is ever written to it: it becomes readable when the supervisor is gone, however it ended.
        loop.add_reader(int(owner), orphaned)
    reporting = loop.create_task(_tell_when_ready(made))
    try:
        await made.run()
    except LifespanFailed as error:
        log.error("%s", error, exc_info=error.__cause__)
        return 1
    except (PgflowError, psycopg.Error, OSError) as error:
        if made.ready.is_set() and not isinstance(error, PgflowError):
            raise
        log.error("%s", reason(error))
        return 1
    finally:
        reporting.cancel()
    return 0


async def _tell_when_ready(made: Worker) -> None:
    """Tell the supervisor, if this process has one, that the worker is ready."""
    descriptor = os.environ.pop(READY, None)
    if descriptor is not None:
        await made.ready.wait()
        os.write(int(descriptor), b"r")
        os.close(int(descriptor))


def workflows_of(targets: Iterable[str]) -> list[Workflow[Any, Any]]:
    """The workflows that targets name.

    Args:
        targets: "module" (every workflow in it) or "module:name" (the workflow, or the list of workflows, of that
            name).

    Raises:
        click.ClickException: no such module or name, or no workflow there.

    Example:
        workflows_of(["shop.orders", "shop.refunds:refund"])
    """
    found: dict[int, Workflow[Any, Any]] = {}
    for target in targets:
        module_name, _, name = target.partition(":")
        module = _import(module_name)
        for one in _named(module, name) if name else _all_of(module):
            found.setdefault(id(one), one)
    return list(found.values())


def lifespan_of(target: str | None) -> LifespanFunction | None:
    """The lifespan that a target names, "module:name".

    Raises:
        click.ClickException: no such module or name, or what is there can be none.

    Example:
        lifespan_of("shop.resources:lifespan")
    """
    if target is None:
        return None
    module_name, _, name = target.partition(":")
    if not name:
        raise click.ClickException(f"--lifespan {target}: expected MODULE:NAME, such as shop.resources:lifespan")
    module = _import(module_name)
    if not hasattr(module, name):
        raise click.ClickException(f"--lifespan {target}: the module {module_name} has no {name!r}")
    try:
        return checked_lifespan(getattr(module, name), f"--lifespan {target}")
    except TypeError as error:
        raise click.ClickException(str(error)) from error


def _import(name: str) -> ModuleType:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise click.ClickException(
                f"no module {name!r} can be imported from {os.getcwd()} or from the Python path. Expected a module's "
                "name with dots, such as my.workflows"
            ) from error
        raise


def _named(module: ModuleType, name: str) -> list[Workflow[Any, Any]]:
    value = getattr(module, name, None)
    if isinstance(value, Workflow):
        return [value]
    if isinstance(value, list | tuple) and value and all(isinstance(one, Workflow) for one in value):
        return list(value)
    raise click.ClickException(
        f"{module.__name__}:{name} is {value!r}; expected a workflow or a list of workflows (made by @pgflow.workflow)"
    )


def _all_of(module: ModuleType) -> list[Workflow[Any, Any]]:
    found = [value for value in vars(module).values() if isinstance(value, Workflow)]
    for name, value in vars(module).items():
        if type(value) is FunctionType and any(isinstance(layer, Workflow) for layer in layers(value)):
            raise click.ClickException(
                f"{module.__name__}.{name}: @pgflow.workflow is below another decorator, which would be left out; "
                "put @pgflow.workflow on top"
            )
    if not found:
        raise click.ClickException(
            f"the module {module.__name__} has no workflow at its top level; expected functions under @pgflow.workflow"
        )
    return found
