"""`pgflow exporter`: metrics of the database for Prometheus, once for all workers."""

from __future__ import annotations

import logging
import signal
import threading

import click
import psycopg

from pgflow.cli.database_options import database_options, readable_errors, reason
from pgflow.cli.logs import configure
from pgflow.database_metrics import Exporter
from pgflow.observe.http_port import HttpPort

_log = logging.getLogger("pgflow.observe")

PORT = 9188


@click.command()
@database_options
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    envvar="PGFLOW_EXPORTER_PORT",
    default=PORT,
    show_default=True,
    help="Serve /metrics, /livez and /readyz at this port.",
)
@click.option(
    "--host",
    envvar="PGFLOW_EXPORTER_HOST",
    default="0.0.0.0",
    show_default=True,
    help="The address of that port.",
)
@click.option("--log-level", default="info", show_default=True, help="debug, info, warning or error.")
@click.option("--log-format", default="human", show_default=True, help="human or json.")
def exporter(dsn: str, schema: str, port: int, host: str, log_level: str, log_format: str) -> None:
    """Serve what belongs to the database, for Prometheus: queues, workflows, dead letters, vacuum, sizes.

    One for each database is enough; it may read from a hot standby, and needs a role that may read pgflow's tables
    (and pg_read_all_stats to see the transactions of other roles). Ends with SIGTERM or SIGINT.

    Example: pgflow exporter --dsn postgresql://reader@standby/shop --port 9188
    """
    with readable_errors():
        configure(log_level, log_format)
        made = Exporter(dsn, schema)
        try:
            made.check()
        except psycopg.OperationalError as error:
            _log.warning("%s It is tried again at each scrape.", reason(error))
        served = HttpPort(
            host,
            port,
            made.report,
            health=made.health,
            options="--port (PGFLOW_EXPORTER_PORT) or --host (PGFLOW_EXPORTER_HOST)",
        )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with served:
        _log.info("metrics of the database are served at port %d of %s", served.port, host)
        ended.wait()
    made.close()
