"""Who may operate, and so write to the table `audit`, in a database that was migrated."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgflow
from pgflow.store.schema import migrations
from tests.operate.audit_rows import ask, new, rows


def test_who_might_operate_before_still_may(database_dsn: str) -> None:
    """Roles with rights on what there was, and none on what comes later: the migration passes them on."""
    dsn = database_dsn
    migrations.upgrade(dsn, revision="0013")
    flow = new(dsn)
    operator, nobody = (f"{kind}_{uuid4().hex[:8]}" for kind in ("operator", "nobody"))
    for name in (operator, nobody):
        ask(dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        ask(dsn, f"GRANT USAGE ON SCHEMA pgflow TO {name}")
        ask(dsn, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow TO {name}")
    ask(dsn, f"REVOKE INSERT, UPDATE, DELETE ON pgflow.requests FROM {nobody}")
    ask(dsn, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pgflow FROM PUBLIC")
    ask(dsn, f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgflow TO {operator}")
    try:
        pgflow.migrate(dsn)
        with psycopg.connect(make_conninfo(dsn, user=operator, password="secret"), autocommit=True) as connection:
            connection.execute("SELECT pgflow.cancel(%s)", [flow])
            connection.execute("SELECT pgflow.pause(%s)", [flow])
        assert [row[:3] for row in rows(dsn)] == [("cancel", flow, operator), ("pause", flow, operator)]
        with psycopg.connect(make_conninfo(dsn, user=nobody, password="secret"), autocommit=True) as connection:
            for call in ("cancel(%s)", "resume(%s)", "write_audit('cancel', %s, NULL, NULL, NULL)"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
                    connection.execute(f"SELECT pgflow.{call}".encode(), [flow])
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table audit"):
                connection.execute("INSERT INTO pgflow.audit (actor, role, operation) VALUES ('kim', 'kim', 'cancel')")
            assert connection.execute("SELECT count(*) FROM pgflow.audit").fetchone() == (2,)
    finally:
        for name in (operator, nobody):
            ask(dsn, f"DROP OWNED BY {name}")
            ask(dsn, f"DROP ROLE {name}")


def test_rights_on_single_columns_are_not_passed_on(database_dsn: str) -> None:
    """The columns of `requests` are none of `audit`: such a role is given a right of its own (docs/operations.md)."""
    dsn = database_dsn
    migrations.upgrade(dsn, revision="0013")
    first, second = new(dsn), new(dsn)
    name = f"operator_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    ask(dsn, f"GRANT USAGE ON SCHEMA pgflow TO {name}")
    ask(dsn, f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgflow TO {name}")
    ask(dsn, f"REVOKE ALL ON pgflow.requests FROM {name}")
    ask(dsn, f"GRANT INSERT (workflow_id, kind) ON pgflow.requests TO {name}")
    try:
        with psycopg.connect(make_conninfo(dsn, user=name, password="secret"), autocommit=True) as connection:
            connection.execute("SELECT pgflow.cancel(%s)", [first])
            pgflow.migrate(dsn)
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table audit"):
                connection.execute("SELECT pgflow.cancel(%s)", [second])
            ask(dsn, f"GRANT INSERT ON pgflow.audit TO {name}")
            connection.execute("SELECT pgflow.cancel(%s)", [second])
        assert [row[:3] for row in rows(dsn)] == [("cancel", second, name)]
    finally:
        ask(dsn, f"DROP OWNED BY {name}")
        ask(dsn, f"DROP ROLE {name}")
