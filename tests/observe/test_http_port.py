"""The port itself: who may keep it, and what a documented metric is. Under a second."""

from __future__ import annotations

import os
import re
import socket
import threading
from pathlib import Path

from pgflow.observe.http_port import HttpPort
from pgflow.observe.process_reports import Household, ProcessReport, answer_in_thread
from pgflow.observe.worker_metrics import WorkerMetrics, state
from tests.observe.scraping import free_port, get_blocking

DOCUMENTED = Path(__file__).parents[2] / "docs" / "observability.md"


def report() -> ProcessReport:
    return ProcessReport(None, None, WorkerMetrics().read())


def test_a_forked_child_does_not_keep_the_port() -> None:
    port = free_port()
    reading, writing = os.pipe()
    with HttpPort("127.0.0.1", port, report):
        child = os.fork()
        if child == 0:  # lives for as long as the parent has its end of the pipe open
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        with HttpPort("127.0.0.1", port, report):
            assert get_blocking(port, "/livez") == (200, "ok\n")
    finally:
        os.close(writing)
        os.close(reading)
        os.waitpid(child, 0)


def test_clients_that_say_nothing_keep_nobody_out_for_good() -> None:
    """More of them than are served at once are hung up on; when they go, the port answers."""
    port = free_port()
    with HttpPort("127.0.0.1", port, report):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
        assert any(one.recv(1) == b"" for one in reversed(silent))
        for one in silent:
            one.close()
        while True:
            try:
                assert get_blocking(port, "/livez") == (200, "ok\n")
            except OSError:
                continue
            break


def test_a_process_that_is_starting_is_not_dead() -> None:
    """Else whoever watches over the supervisor would kill it while it starts one of its processes again."""
    household = Household(["0"])
    ours, theirs = socket.socketpair()
    household.add("0", ours)
    assert household.report()[:2] == (None, "process 0 is starting")
    held = threading.Event()
    go_on = threading.Event()

    def report_when_it_may() -> ProcessReport:
        if held.is_set():
            go_on.wait()
        return report()

    answer_in_thread(theirs, report_when_it_may)
    while household.report().unready is not None:  # the thread begins
        pass
    held.set()
    assert household.report()[:2] == ("process 0 does not answer", "process 0 does not answer")
    go_on.set()
    household.remove("0")
    assert household.report()[:2] == (None, "process 0 does not run")


def test_every_metric_of_a_worker_is_documented() -> None:
    families = [*WorkerMetrics().read(), *state(0, 0, 0, 0, 0, 0), *Household(["0"]).report().families]
    text = DOCUMENTED.read_text(encoding="utf-8")
    section = text[text.index("## Metrics of workers") : text.index("## Health")]
    rows = dict(re.findall(r"^\| `(pgflow_\w+)` \|([^|]*)\|", section, re.MULTILINE))
    assert {name: re.findall(r"`(\w+)`", labels) for name, labels in rows.items()} == {
        family.name: [label for label in family.labels if label != "process"] for family in families
    }
