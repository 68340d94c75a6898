"""Faults of the server and the schema, planted one by one: each is found, and nothing else."""

from __future__ import annotations

import time
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgflow
from pgflow.store.doctor import check_server
from pgflow.store.schema import roles
from pgflow.store.schema.versions import SCHEMA_VERSION
from tests.doctor.conftest import Examine, ask, examined, role
from tests.pooler import pooler


@pgflow.workflow
async def double(ctx: pgflow.WorkflowContext, number: int) -> int:
    return number * 2


async def test_a_healthy_database(dsn: str) -> None:
    """Empty, with a worker that works, and after it has left."""
    assert examined(dsn).findings == []
    async with pgflow.Client(dsn) as client:
        async with pgflow.Worker(dsn, workflows=[double]):
            handles = await client.dispatch_many(double, [{"number": n} for n in range(20)])
            for handle in handles:
                await handle.output(60)
            diagnosis = await client.doctor()
            assert (diagnosis.findings, diagnosis.level, diagnosis.needs_person) == ([], "ok", False)
            assert len(diagnosis.checks) == len(set(diagnosis.checks)) > 10
        assert (await client.doctor()).findings == []


def test_no_schema(database_dsn: str, only: Examine) -> None:
    (finding,) = only("schema", "error", database_dsn)
    assert finding.found == "none" and "pgflow db upgrade --schema pgflow" in finding.advice
    assert examined(database_dsn).checks == ["schema"]


@pytest.mark.parametrize(
    ("version", "compatible_from", "level", "says"),
    [
        (13, 2, "error", "too old for this code"),
        (SCHEMA_VERSION - 1, 2, "warning", "this code works on it"),
        (SCHEMA_VERSION + 1, 2, "info", "newer than this code"),
        (SCHEMA_VERSION + 9, SCHEMA_VERSION + 1, "error", "this code is too old for it"),
    ],
)
def test_a_schema_of_another_version(
    dsn: str,
    only: Examine,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    compatible_from: int,
    level: str,
    says: str,
) -> None:
    monkeypatch.setattr(check_server, "NEEDS", 14)
    ask(dsn, "UPDATE pgflow.schema_info SET version = %s, compatible_from = %s", version, compatible_from)
    (finding,) = only("schema", level)
    assert f"version {version}" in finding.found and says in finding.found


def test_a_server_that_is_too_old(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgflow.store.schema.compatibility.OLDEST_SERVER", 990000)
    assert "PostgreSQL 99" in only("schema", "error")[0].expected


@pytest.mark.parametrize(("seconds", "way"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_is_off(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch, seconds: int, way: str) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + seconds)
    (finding,) = only("clock", "warning")
    assert f"60 min {way} the database's" in finding.found.replace("3600 s", "60 min")


def test_a_clock_of_the_server_that_was_set_back(dsn: str, only: Examine) -> None:
    """As it looks afterwards: a worker that lives has sent a heartbeat in the future."""
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(1234)")
        ask(
            dsn,
            "INSERT INTO pgflow.workers (id, host, pid, lock_key, version, queues, heartbeat_at, expires_at) "
            "OVERRIDING SYSTEM VALUE "
            "VALUES (7, 'here', 1, 1234, '1', '{default}', now() + interval '1 h', now() + interval '2 h')",
        )
        (finding,) = only("clock", "error")
    assert finding.where == ("7",) and "set back" in finding.found


def test_notifications_that_are_off(dsn: str, only: Examine) -> None:
    name = conninfo_to_dict(dsn)["dbname"]
    ask(dsn, f"ALTER DATABASE {name} SET pgflow.hints = off")
    (finding,) = only("notifications", "warning")
    assert "pgflow.hints is off" in finding.found
    ask(dsn, f"ALTER DATABASE {name} RESET pgflow.hints")
    ask(dsn, "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) FROM PUBLIC")
    with role(dsn) as at:
        worker = conninfo_to_dict(at)["user"]
        roles.apply(dsn, "pgflow", [roles.Grant(str(worker), "worker")])
        (finding,) = only("notifications", "warning")
        assert (
            finding.where == (worker,)
            and f'GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO "{worker}"' in finding.advice
        )
        ask(dsn, finding.advice)
        assert examined(dsn).findings == []


def test_notifications_that_nobody_takes(dsn: str, only: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_server, "QUEUE_FULL", -1.0)
    assert "when it is full, commits fail" in only("notifications", "error")[0].found


async def test_a_pooler(dsn: str, only: Examine) -> None:
    """In between, it is worth knowing; a worker's, worth changing."""
    with pooler(dsn) as between:
        (finding,) = only("pooler", "info", between.dsn)
        assert "this connection goes through a pooler" in finding.found
        async with pgflow.Worker(between.dsn, workflows=[double]):
            (finding,) = only("pooler", "warning")
            assert finding.where == tuple(str(id) for (id,) in ask(dsn, "SELECT id FROM pgflow.workers"))


def test_roles(dsn: str, only: Examine) -> None:
    """One that lacks rights, one that has more, one that has gone, and functions that are everybody's."""
    with role(dsn) as at:
        name = str(conninfo_to_dict(at)["user"])
        roles.apply(dsn, "pgflow", [roles.Grant(name, "worker"), roles.Grant(name, "reader")])
        assert examined(dsn).findings == []
        ask(dsn, f"REVOKE UPDATE ON pgflow.runs FROM {name}")
        ask(dsn, f"REVOKE EXECUTE ON FUNCTION pgflow.dispatch FROM {name}")
        (finding,) = only("roles", "error")
        assert "lacks EXECUTE on dispatch, UPDATE on runs" in finding.found and finding.where == (name,)
        roles.apply(dsn, "pgflow", [])
        assert examined(dsn).findings == []
        ask(dsn, f"ALTER ROLE {name} SUPERUSER")
        assert "can alter the schema" in only("roles", "warning")[0].found
        ask(dsn, f"ALTER ROLE {name} NOSUPERUSER")
        ask(dsn, "GRANT EXECUTE ON FUNCTION pgflow.terminate TO PUBLIC")
        (finding,) = only("roles", "error")
        assert finding.where == ("terminate",)
        ask(dsn, "REVOKE EXECUTE ON FUNCTION pgflow.terminate FROM PUBLIC")
    assert {finding.found for finding in only("roles", "info")} == {
        f"the role {name}, granted the rights of a {kind}, is no longer there" for kind in ("reader", "worker")
    }


def test_an_index_whose_building_was_interrupted(dsn: str, only: Examine) -> None:
    ask(dsn, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgflow.runs_claimable'::regclass")
    (finding,) = only("indexes", "warning")
    assert finding.where == ("runs_claimable",)


def test_without_rights(dsn: str) -> None:
    """What cannot be looked at is said, check by check; the others are made."""
    with role(dsn, "GRANT USAGE ON SCHEMA pgflow TO {name}", "GRANT SELECT ON pgflow.schema_info TO {name}") as at:
        found = examined(at)
        failed = [finding for finding in found.findings if "could not be made: permission denied" in finding.found]
        assert {finding.check for finding in failed} >= {"clock", "work", "workers", "dead letters", "histories"}
        assert all(finding.level == "warning" and "pgflow db roles --reader" in finding.advice for finding in failed)
        assert set(found.checks) - {finding.check for finding in failed} >= {"indexes", "vacuum", "bloat"}
        name = str(conninfo_to_dict(at)["user"])
        roles.apply(dsn, "pgflow", [roles.Grant(name, "reader")])
        assert examined(at).findings == []
        with psycopg.connect(dsn):
            (finding,) = examined(at).findings
        assert (finding.check, finding.level) == ("vacuum", "info")
        assert "may not look at" in finding.found and "pg_read_all_stats" in finding.advice


def test_a_check_that_takes_too_long(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up; what does not need the table is looked at all the same."""
    monkeypatch.setattr("pgflow.store.client.sync.examining.STATEMENT", 0.3)
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE pgflow.signals IN ACCESS EXCLUSIVE MODE")
        found = examined(dsn).findings
    assert {(finding.check, finding.level) for finding in found} == {("dead letters", "warning"), ("mail", "warning")}
    assert all("could not be made: canceling statement" in finding.found for finding in found)


def test_no_database() -> None:
    with pytest.raises(psycopg.OperationalError):
        examined(f"host=/nowhere/{uuid4().hex} dbname=x connect_timeout=2")
