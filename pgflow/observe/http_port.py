"""The port at which a process shows itself: `/metrics`, `/livez`, `/readyz`.

It is served by threads of the standard library, so that an answer comes also while the event loop is blocked.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AddressFamily
from socketserver import TCPServer
from typing import Any

from pgflow import forking
from pgflow.errors import PgflowError
from pgflow.observe.exposition import exposition, require_client
from pgflow.observe.meters import Family
from pgflow.observe.process_reports import ProcessReport

_log = logging.getLogger("pgflow.observe")

AT_ONCE = 16
"""Requests at once; whoever comes on top of that is hung up on."""

PATIENCE = 5.0
"""Seconds that a client may take to say what it wants, and to read the answer."""

OPTIONS = "--metrics-port (PGFLOW_METRICS_PORT) or --metrics-host (PGFLOW_METRICS_HOST)"
"""How a user of `pgflow worker` chooses another port or address."""

PLAIN = "text/plain; charset=utf-8"


class HttpPort(ThreadingHTTPServer):
    """A port that answers with what `report` tells.

    Args:
        host: the address to listen at; "::" or "0.0.0.0" is all of the machine's.
        port: the port; 0: any that is free.
        report: called in a thread for each request.
        health: called instead for `/livez` and `/readyz`, which nobody should have to wait for; None: `report` is.
        options: how a user chooses another port or address, for the message.

    Raises:
        PgflowError: the port is in use, or the address is not this machine's; or prometheus-client is not installed.

    Example:
        with HttpPort("0.0.0.0", 9100, report):
            ...
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64  # while more than these wait to be accepted, the system lets clients wait for seconds

    def __init__(
        self,
        host: str,
        port: int,
        report: Callable[[], ProcessReport],
        *,
        health: Callable[[], ProcessReport] | None = None,
        options: str = OPTIONS,
    ) -> None:
        require_client()
        self.report = report
        self.health = health or report
        self._places = threading.BoundedSemaphore(AT_ONCE)
        if ":" in host:
            self.address_family = AddressFamily.AF_INET6
        try:
            super().__init__((host, port), _Request)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise PgflowError(
                f"the metrics port {port} at {host} cannot be opened: {why}. Choose another {options}, or "
                f"find out who has it: `ss -ltnp 'sport = :{port}'`"
            ) from error
        forking.watch_socket(self)  # else a child that outlives this process would keep the port
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="pgflow metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def __enter__(self) -> HttpPort:
        """It listens already."""
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a request in a thread, if there are not too many already."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a request, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def server_bind(self) -> None:
        """Bind, without asking the network for this machine's name as the standard library's server does."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of an error of our own; a client that hangs up is nobody's business."""
        error = sys.exception()
        if not isinstance(error, OSError):
            _log.error("a request for metrics failed", exc_info=error)


class _Request(BaseHTTPRequestHandler):
    server: HttpPort
    timeout = PATIENCE
    server_version = "pgflow"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with what is asked for."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            families: list[Family] = self.server.report().families
            body, content_type = exposition(families, self.headers.get("Accept", ""))
            self._answer(200, body, content_type)
        elif path == "/livez":
            self._verdict(self.server.health().dead)
        elif path == "/readyz":
            self._verdict(self.server.health().unready)
        else:
            said = f"there is nothing at {path!r:.80}; expected /metrics, /livez or /readyz\n"
            self._answer(404, said.encode(), PLAIN)

    do_HEAD = do_GET

    def _verdict(self, problem: str | None) -> None:
        if problem is None:
            self._answer(200, b"ok\n", PLAIN)
        else:
            self._answer(503, f"{problem}\n".encode(), PLAIN)

    def _answer(self, code: int, body: bytes, content_type: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds; nobody wants a line for each."""
