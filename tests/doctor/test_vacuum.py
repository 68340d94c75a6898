"""What holds back vacuum, and what vacuum leaves behind, planted one by one."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

import pgflow
from pgflow.embedded import Postgres
from pgflow.store.doctor import check_vacuum
from tests import databases
from tests.doctor.conftest import Examine, ask, examined
from tests.waiting import until_blocking


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that is open is open for long."""
    monkeypatch.setattr(check_vacuum, "OPEN", 0.0)


@pytest.mark.usefixtures("impatient")
def test_snapshots_that_stay_open(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, by their processes; one that only reads without a snapshot holds nothing back."""
    with (
        psycopg.connect(dsn) as one,
        psycopg.connect(dsn, application_name="report") as other,
        psycopg.connect(dsn) as idle,
    ):
        for connection in (one, other):
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for connection in (one, other, idle):
            connection.execute("SELECT 1")
        found = only("vacuum", "warning")
        assert [finding.where for finding in found] == [(str(c.info.backend_pid),) for c in (one, other)]
        assert '"report" of' in found[1].found and f"pg_terminate_backend({other.info.backend_pid})" in found[1].advice
        monkeypatch.setattr(check_vacuum, "OPEN_LONG", 0.0)
        assert len(only("vacuum", "error")) == 2
    assert examined(dsn).findings == []


@pytest.fixture(scope="module")
def own_dsn() -> Iterator[str]:
    """A server on which transactions can be prepared, and a schema on it."""
    with Postgres(settings={**databases.FAST, "max_prepared_transactions": "2"}) as server:
        pgflow.migrate(server.dsn)
        yield server.dsn


@pytest.mark.usefixtures("impatient")
def test_a_prepared_transaction(own_dsn: str, only: Examine) -> None:
    with psycopg.connect(own_dsn) as connection:
        connection.execute("CREATE TABLE orders (id int)")
        connection.execute("PREPARE TRANSACTION 'order 7'")
    (finding,) = only("vacuum", "warning", own_dsn)
    assert finding.where == ("order 7",) and "ROLLBACK PREPARED 'order 7'" in finding.advice
    ask(own_dsn, "ROLLBACK PREPARED 'order 7'")
    assert examined(own_dsn).findings == []


def test_vacuum_that_is_off(dsn: str, only: Examine) -> None:
    ask(dsn, "ALTER TABLE pgflow.runs SET (autovacuum_enabled = false)")
    (finding,) = only("bloat", "error")
    assert finding.where == ("runs",) and 'ALTER TABLE "pgflow"."runs" RESET (autovacuum_enabled)' in finding.advice


def test_dead_rows(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a snapshot keeps vacuum from removing them."""
    monkeypatch.setattr(check_vacuum, "DEAD", 50)
    with pgflow.SyncClient(dsn) as client:
        client.dispatch_many("waiting", [{}] * 10)
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn, autocommit=True) as writer:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        for _ in range(20):
            writer.execute("UPDATE pgflow.runs SET priority = priority + 1")
        writer.execute("SELECT pg_stat_force_next_flush()")
        until_blocking(lambda: examined(dsn).findings, "the statistics")
        (finding,) = only("bloat", "warning")
    assert finding.where == ("runs",) and "dead rows and" in finding.found and "VACUUM" in finding.advice


def test_transaction_numbers_that_run_out(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_vacuum, "FROZEN", -1)
    assert "not frozen" in only("bloat", "error")[0].found
