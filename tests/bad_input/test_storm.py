"""A worker process under a storm of hostile workflows: random acts, values, errors and rows. Every innocent one reaches
its end.

The worker is one process for all examples, and the same one at their end. About 15 seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import pgflow
from tests import databases
from tests.bad_input import storm
from tests.bad_input.test_raising import ACTIVITIES, BODIES, MADE, calls
from tests.bad_input.test_rows import HOSTILE, Hostile
from tests.worker import flows

ROOT = Path(__file__).parent.parent.parent
LIMIT = 120.0
"""Seconds that an innocent workflow may take on the slowest machine."""


class Storm:
    """One database, and a worker process that works on it."""

    def __init__(self, dsn: str, log: Path) -> None:
        self.dsn = dsn
        self._log = log
        command = [
            sys.executable,
            "cli.py",
            "worker",
            "tests.bad_input.storm:WORKFLOWS",
            "tests.bad_input.test_rows:WORKFLOWS",
        ]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--log-level", "error"], cwd=ROOT, stderr=out, env={**os.environ, "PGFLOW_DATABASE_URL": dsn}
            )
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.client = pgflow.SyncClient(dsn)
        self.client.__enter__()
        self.hostile = 0
        self.innocent = 0

    def close(self) -> None:
        """Let it end as it does when it is asked to."""
        self.client.__exit__(None, None, None)
        self.connection.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()

    def alive(self) -> None:
        """It is the process that it was."""
        assert self.process.poll() is None, self._log.read_text()[-5000:]

    def look(self) -> None:
        """Everybody can see everything."""
        found = self.client.list(limit=1000)
        for one in found[:40]:
            self.client.get(one.id)
            self.client.history(one.id)


@pytest.fixture(scope="module")
def weather(server_dsn: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storm]:
    with databases.database(server_dsn, template) as dsn:
        found = Storm(dsn, tmp_path_factory.mktemp("storm") / "worker.log")
        try:
            yield found
        finally:
            found.close()


acts = st.one_of(
    st.tuples(st.sampled_from(sorted(storm.ACTS)), st.sampled_from(sorted(storm.VALUES)), st.booleans()),
    st.tuples(st.sampled_from(sorted([*ACTIVITIES, *BODIES])), st.sampled_from(sorted(MADE)), st.booleans()),
).filter(lambda act: act[:2] not in storm.ENDLESS)
plans = st.tuples(st.lists(acts, max_size=4), st.sampled_from(sorted([*MADE, *storm.VALUES])))
rows = st.permutations(sorted(HOSTILE)).map(lambda every: every[:8])
gusts = st.tuples(st.lists(plans, min_size=4, max_size=12), rows).flatmap(
    lambda both: st.permutations([*both[0], *both[1]])
)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)
@given(gusts)
def test_every_innocent_workflow_comes_to_its_end(weather: Storm, gust: list[Any]) -> None:
    client = weather.client
    innocents = []
    for number, one in enumerate(gust):
        if isinstance(one, str):
            with weather.connection.transaction():
                HOSTILE[one](Hostile(weather.connection))
        else:
            did, last = one
            client.dispatch(storm.hostile, [list(act) for act in did], last)
        innocents.append((number, client.dispatch(storm.innocent, number)))
        weather.hostile += 1
    for number, handle in innocents:
        try:
            assert handle.output(timeout=LIMIT) == number + 2
        except TimeoutError:
            weather.alive()
            raise
        weather.innocent += 1
    weather.alive()
    weather.look()


def test_what_a_task_raises_to_end_the_process_ends_its_own_work(weather: Storm) -> None:
    """asyncio lets it out of the event loop."""
    handles = [weather.client.dispatch(calls, "in_a_task", what) for what in ("SystemExit", "KeyboardInterrupt")]
    for handle in handles:
        with pytest.raises(pgflow.WorkflowFailed, match="SystemExit|KeyboardInterrupt"):
            handle.output(timeout=LIMIT)
    assert weather.client.dispatch(storm.innocent, 1).output(timeout=LIMIT) == 3
    weather.alive()


def test_what_was_hostile_has_ended_as_well(weather: Storm) -> None:
    """But for what sleeps, as it was asked to."""
    left = weather.connection.execute(
        "SELECT w.id FROM pgflow.workflows AS w JOIN pgflow.runs AS r ON r.workflow_id = w.id "
        "WHERE w.name = 'hostile' AND r.status IN ('pending', 'running')"
    ).fetchall()
    for (id,) in left:
        try:
            weather.client.output(id, timeout=LIMIT)
        except (pgflow.WorkflowFailed, pgflow.SerializationError):
            pass


deaths = st.tuples(st.sampled_from([*storm.DEADLY, "its code"]), st.sampled_from(["killed", "0", "1", "139"]))


@settings(
    max_examples=1,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.generate],
)
@given(
    st.lists(plans, min_size=6, max_size=12), st.lists(deaths, min_size=2, max_size=2, unique_by=lambda death: death[0])
)
def test_deaths_take_no_innocent_workflow_with_them(
    dsn_of_deaths: str, gust: list[Any], dying: list[tuple[str, str]]
) -> None:
    """Processes die of some, and are started again: those fail, and all others come to their end."""
    with pgflow.SyncClient(dsn_of_deaths) as client:
        guilty = [client.dispatch(storm.deadly, where, how) for where, how in dying]
        innocents = []
        for number, (did, last) in enumerate(gust):
            client.dispatch(storm.hostile, [list(act) for act in did], last)
            innocents.append((number, client.dispatch(storm.innocent, number)))
        for number, handle in innocents:
            assert handle.output(timeout=LIMIT) == number + 2
        for one in guilty:
            with pytest.raises(pgflow.WorkflowFailed):
                one.output(timeout=LIMIT)


@pytest.fixture(scope="module")
def dsn_of_deaths(server_dsn: str, template: str) -> Iterator[str]:
    """Of a database that two processes work on, which are started again when they die."""
    with databases.database(server_dsn, template) as dsn:
        environment = {**os.environ, flows.VARIABLE: dsn, "PGFLOW_TEST_LOGS": os.devnull}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bad_input.storm"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield dsn
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
