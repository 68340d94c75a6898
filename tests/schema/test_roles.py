"""`pgflow db roles`: who may do what with which table and function, as the server sees it. About 5 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from pgflow.cli import main
from pgflow.store.schema import migrations
from pgflow.store.schema.roles import FUNCTIONS, KINDS, RELATIONS, renew, with_owners_rights

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def ask(dsn: str, query: str, *values: Any) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def pgflow(dsn: str | None, *arguments: str) -> Result:
    environment: dict[str, str | None] = {"PGFLOW_DATABASE_URL": dsn, "PGFLOW_SCHEMA": None}
    return CliRunner().invoke(main, ["db", "roles", *arguments], env=environment, prog_name="pgflow")


def said(result: Result, code: int = 0) -> str:
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def options(names: dict[str, str]) -> list[str]:
    return [word for kind, name in names.items() for word in (f"--{kind}", name)]


@pytest.fixture
def names(dsn: str) -> Iterator[dict[str, str]]:
    """A role of each kind, whose names need quotes."""
    names = {kind: f'{kind} "{uuid4().hex[:8]}" of größe' for kind in KINDS}
    made = [sql.Identifier(name) for name in names.values()]
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("CREATE ROLE {}").format(name))
        try:
            yield names
        finally:
            for name in made:
                connection.execute(sql.SQL("DROP OWNED BY {}").format(name))
                connection.execute(sql.SQL("DROP ROLE {}").format(name))


def on_tables(dsn: str, role: str) -> dict[str, set[str]]:
    """What a role may do with whole tables and views."""
    query = (
        "SELECT c.relname, r.name FROM pg_class AS c, unnest(%s::text[]) AS r (name) "
        "WHERE c.relnamespace = 'pgflow'::regnamespace AND c.relkind IN ('r', 'v') "
        "AND has_table_privilege(%s, c.oid, r.name)"
    )
    found: dict[str, set[str]] = {}
    for table, right in ask(dsn, query, list(RIGHTS), role):
        found.setdefault(table, set()).add(right)
    return found


def hidden(dsn: str, role: str) -> dict[str, set[str]]:
    """The columns that a role may not read."""
    query = (
        "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 "
        "AND NOT a.attisdropped WHERE c.relnamespace = 'pgflow'::regnamespace AND c.relkind IN ('r', 'v') "
        "AND NOT has_column_privilege(%s, c.oid, a.attnum, 'SELECT')"
    )
    found: dict[str, set[str]] = {}
    for table, column in ask(dsn, query, role):
        found.setdefault(table, set()).add(column)
    return found


def callable_by(dsn: str, role: str) -> set[str]:
    query = (
        "SELECT p.proname FROM pg_proc AS p WHERE p.pronamespace = 'pgflow'::regnamespace "
        "AND has_function_privilege(%s, p.oid, 'EXECUTE') AND p.prorettype <> 'trigger'::regtype"
    )
    return {name for (name,) in ask(dsn, query, role)}


def test_everything_is_classified(dsn: str) -> None:
    """A new table, view or function must be put somewhere in `pgflow/store/schema/roles.py`."""
    relations = ask(
        dsn, "SELECT relname FROM pg_class WHERE relnamespace = 'pgflow'::regnamespace AND relkind NOT IN ('i', 'S')"
    )
    assert {name for (name,) in relations} == set(RELATIONS)
    functions = ask(
        dsn,
        "SELECT DISTINCT proname FROM pg_proc "
        "WHERE pronamespace = 'pgflow'::regnamespace AND prorettype <> 'trigger'::regtype",
    )
    assert {name for (name,) in functions} == set(FUNCTIONS)
    columns = ask(
        dsn,
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'pgflow' AND data_type = 'json'",
    )
    payloads = {(name, column) for name, relation in RELATIONS.items() for column in relation.payloads}
    payloads.add(("workers", "definitions"))  # what arguments look like, and none of them
    assert {(name, column) for name, column in columns} <= payloads, "JSON of an application's is a payload"


def functions(dsn: str) -> list[tuple[str, bool, bool]]:
    """Each function, whether it runs with its owner's rights, and whether it is everybody's."""
    return ask(
        dsn,
        "SELECT p.proname, p.prosecdef, coalesce((SELECT bool_or(a.grantee = 0) FROM aclexplode(p.proacl) AS a), true) "
        "FROM pg_proc AS p WHERE pronamespace = 'pgflow'::regnamespace AND prorettype <> 'trigger'::regtype",
    )


def test_until_roles_are_granted_functions_run_with_their_callers_rights(dsn: str) -> None:
    """Rights on tables, granted by hand, are enough to operate; without them nothing can be done."""
    found = functions(dsn)
    assert not any(owners for _, owners, _ in found) and all(everybodys for *_, everybodys in found)
    roles = {what: f"{what}_{uuid4().hex[:8]}" for what in ("hand", "stranger", "worker")}
    for role in roles.values():
        ask(dsn, f"CREATE ROLE {role}")
        ask(dsn, f"GRANT USAGE ON SCHEMA pgflow TO {role}")
    ask(dsn, f"GRANT ALL ON ALL TABLES IN SCHEMA pgflow TO {roles['hand']}")
    by_hand, strange = (
        psycopg.conninfo.make_conninfo(dsn, options=f"-c role={roles[what]}") for what in list(roles)[:2]
    )
    try:
        for granted in (False, True):  # it stays so when another role is granted something
            if granted:
                said(pgflow(dsn, "--worker", roles["worker"], "--apply"))
            ((id,),) = ask(by_hand, "SELECT pgflow.dispatch('pay')")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ask(strange, "SELECT pgflow.cancel(%s)", id)
            assert ask(by_hand, "SELECT pgflow.cancel(%s, reason => 'by hand')", id) == [(True,)]
    finally:
        for role in roles.values():
            ask(dsn, f"DROP OWNED BY {role}")
            ask(dsn, f"DROP ROLE {role}")


def test_nobody_puts_the_functions_of_triggers_on_tables_of_their_own(dsn: str, names: dict[str, str]) -> None:
    """They run with the owner's rights, whatever the table."""
    said(pgflow(dsn, *options(names), "--apply"))
    made = ask(
        dsn,
        "SELECT p.oid::regprocedure::text FROM pg_proc AS p "
        "WHERE pronamespace = 'pgflow'::regnamespace AND prorettype = 'trigger'::regtype",
    )
    assert len(made) >= 4
    for kind in KINDS:
        role = sql.Identifier(names[kind]).as_string()
        with psycopg.connect(dsn) as connection:
            connection.execute(f"SET ROLE {role}; CREATE TEMP TABLE mine (workflow_id uuid)".encode())
            for (function,) in made:
                text = f"CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION {function}"
                with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                    connection.execute(text.encode())


def test_a_role_of_the_name_of_one_that_has_gone_is_given_nothing(dsn: str) -> None:
    kim = f"kim_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {kim}")
    said(pgflow(dsn, "--worker", kim, "--apply"))
    ask(dsn, f"DROP OWNED BY {kim}")
    ask(dsn, f"DROP ROLE {kim}")
    ask(dsn, f"CREATE ROLE {kim}")
    try:
        with psycopg.connect(dsn) as connection:
            renew(connection, "pgflow")
        assert on_tables(dsn, kim) == {}
    finally:
        ask(dsn, f"DROP ROLE {kim}")


def test_whose_rights_functions_run_with(dsn: str, names: dict[str, str]) -> None:
    """Those that run with the owner's are not everybody's; those that are everybody's run with the caller's."""
    said(pgflow(dsn, "--operator", names["operator"], "--apply"))
    found = functions(dsn)
    assert {name for name, owners, _ in found if owners} == with_owners_rights()
    assert {name for name, _, everybodys in found if everybodys} == {
        name for name, kinds in FUNCTIONS.items() if kinds == set(KINDS)
    }


def test_what_each_may(dsn: str, names: dict[str, str]) -> None:
    """Every table, column and function; nothing is granted before --apply, and twice is once."""
    printed = said(pgflow(dsn, *options(names)))
    assert all(on_tables(dsn, name) == {} for name in names.values())
    for _ in range(2):
        assert "were granted" in said(pgflow(dsn, *options(names), "--apply"))
        assert said(pgflow(dsn, *options(names))) == printed
        assert on_tables(dsn, names["worker"]) == {
            name: set(relation.worker.split(", ")) for name, relation in RELATIONS.items()
        }
        assert hidden(dsn, names["worker"]) == {}
        assert on_tables(dsn, names["reader"]) == {
            name: {"SELECT"} for name, relation in RELATIONS.items() if not relation.payloads
        }
        assert hidden(dsn, names["reader"]) == {
            name: set(relation.payloads) for name, relation in RELATIONS.items() if relation.payloads
        }
        for kind in ("operator", "sender"):
            assert on_tables(dsn, names[kind]) == {"schema_info": {"SELECT"}, "pgflow_version": {"SELECT"}}
        for kind, name in names.items():
            assert callable_by(dsn, name) == {function for function, kinds in FUNCTIONS.items() if kind in kinds}
            assert ask(dsn, "SELECT has_schema_privilege(%s, 'pgflow', 'CREATE')", name) == [(False,)]
    assert ask(dsn, "SELECT kind, role, payloads FROM pgflow.roles ORDER BY 1") == [
        (kind, names[kind], False) for kind in sorted(KINDS)
    ]


def test_what_is_printed_does_the_same(dsn: str, names: dict[str, str]) -> None:
    ask(dsn, said(pgflow(dsn, *options(names), "--payloads")))
    assert hidden(dsn, names["reader"]) == {}
    assert callable_by(dsn, names["sender"]) >= {"dispatch", "signal"}
    assert ask(dsn, "SELECT kind FROM pgflow.roles WHERE payloads") == [("reader",)]


def test_rights_are_what_was_said_last(dsn: str, names: dict[str, str]) -> None:
    """A role loses what it no longer is; one role may be several things; a role that is not named stays as it is."""
    said(pgflow(dsn, *options(names), "--payloads", "--apply"))
    kim = names["worker"]
    said(pgflow(dsn, "--operator", kim, "--reader", kim, "--apply"))
    assert on_tables(dsn, kim).keys() == {name for name, relation in RELATIONS.items() if not relation.payloads}
    assert callable_by(dsn, kim) == {name for name, kinds in FUNCTIONS.items() if kinds & {"operator", "reader"}}
    assert hidden(dsn, names["reader"]) == {}
    said(pgflow(dsn, "--reader", names["reader"], "--apply"))
    assert hidden(dsn, names["reader"]) != {}
    kinds = ask(dsn, "SELECT kind FROM pgflow.roles WHERE role = %s ORDER BY 1", kim)
    assert kinds == [("operator",), ("reader",)]


def test_what_migrations_add_is_granted(dsn: str, names: dict[str, str]) -> None:
    """Rights are taken away, as if all were new: the next migration gives them again, or a call without names."""
    said(pgflow(dsn, *options(names), "--apply"))
    operators = callable_by(dsn, names["operator"])
    migrations.downgrade(dsn, revision="0018")

    def take() -> None:
        for name in names.values():
            who = sql.Identifier(name).as_string()
            ask(dsn, f"REVOKE ALL ON ALL TABLES IN SCHEMA pgflow FROM {who}")
            ask(dsn, f"REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgflow FROM {who}")

    take()
    migrations.migrate(dsn)
    if migrations.newest() == "0018":
        with psycopg.connect(dsn) as connection:
            renew(connection, "pgflow")
    assert on_tables(dsn, names["worker"]).keys() == RELATIONS.keys()
    assert callable_by(dsn, names["operator"]) == operators
    take()
    assert "were granted" in said(pgflow(dsn, "--apply"))
    assert callable_by(dsn, names["operator"]) == operators


def test_a_role_that_has_gone_stops_no_migration(dsn: str) -> None:
    gone = f"gone_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {gone}")
    said(pgflow(dsn, "--worker", gone, "--apply"))
    ask(dsn, f"DROP OWNED BY {gone}")
    ask(dsn, f"DROP ROLE {gone}")
    migrations.downgrade(dsn, revision="0018")
    migrations.migrate(dsn)
    assert f'none called "{gone}"' in said(pgflow(dsn), 1)


@pytest.mark.parametrize("schema", ['Work "Flow" 2', "o'clock", "größe-1", "public"])
def test_a_schema_of_any_name(database_dsn: str, schema: str) -> None:
    """What else stands in it is nobody's business."""
    ask(
        database_dsn,
        "CREATE TABLE public.orders (id int); CREATE FUNCTION public.ours() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    migrations.migrate(database_dsn, schema)
    role = f"worker_{uuid4().hex[:8]}"
    ask(
        database_dsn,
        f"CREATE ROLE {role}; GRANT SELECT ON public.orders TO {role}; GRANT EXECUTE ON FUNCTION public.ours TO {role}",
    )
    try:
        said(pgflow(database_dsn, "--schema", schema, "--worker", role, "--sender", role, "--apply"))
        table = sql.Identifier(schema, "runs").as_string()
        assert ask(database_dsn, "SELECT has_table_privilege(%s, %s, 'UPDATE')", role, table) == [(True,)]
        said(pgflow(database_dsn, "--schema", schema, "--sender", role, "--apply"))
        assert ask(database_dsn, "SELECT has_table_privilege(%s, %s, 'UPDATE')", role, table) == [(False,)]
        assert ask(database_dsn, "SELECT has_table_privilege(%s, 'public.orders', 'SELECT')", role) == [(True,)]
    finally:
        ask(database_dsn, f"DROP OWNED BY {role}")
        ask(database_dsn, f"DROP ROLE {role}")


def test_roles_that_cannot_be(dsn: str, names: dict[str, str]) -> None:
    """Unknown ones, superusers, the owner and its members: each is said, and nothing is changed."""
    worker = names["worker"]
    unknown = said(pgflow(dsn, "--worker", worker, "--reader", "no such", "--apply"), 1)
    assert 'none called "no such"' in unknown and 'CREATE ROLE "no such" LOGIN' in unknown
    assert 'none called "public"' in said(pgflow(dsn, "--reader", "public", "--apply"), 1)
    ((superuser,),) = ask(dsn, "SELECT current_user")
    assert f'the role "{superuser}" is a superuser' in said(pgflow(dsn, "--worker", superuser, "--apply"), 1)
    owner = f"owner_{uuid4().hex[:8]}"
    ask(dsn, f"CREATE ROLE {owner}")
    try:
        for name in RELATIONS:
            ask(dsn, f"ALTER TABLE pgflow.{name} OWNER TO {owner}")
        assert f'the role "{owner}" owns the tables' in said(pgflow(dsn, "--worker", owner, "--apply"), 1)
        ask(dsn, sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner), sql.Identifier(worker)).as_string())
        assert f'or is a member of "{owner}"' in said(pgflow(dsn, "--worker", worker, "--apply"), 1)
    finally:
        ask(dsn, f"REASSIGN OWNED BY {owner} TO {superuser}; DROP OWNED BY {owner}; DROP ROLE {owner}")
    assert on_tables(dsn, worker) == {}
    assert ask(dsn, "SELECT FROM pgflow.roles") == []


def test_whoever_may_not_grant(dsn: str, names: dict[str, str]) -> None:
    """The server would only warn, and grant nothing."""
    other = psycopg.conninfo.make_conninfo(dsn, options="-c role=pg_read_all_data")
    ask(dsn, "GRANT USAGE ON SCHEMA pgflow TO pg_read_all_data")
    refused = said(pgflow(other, "--worker", names["worker"], "--apply"), 1)
    assert "may not grant rights" in refused and "expected its owner" in refused
    assert on_tables(dsn, names["worker"]) == {}


def test_used_wrongly(dsn: str, database_dsn: str, names: dict[str, str]) -> None:
    assert "expected --reader ROLE" in said(pgflow(dsn, "--payloads", "--worker", names["worker"]), 2)
    assert "name some, such as" in said(pgflow(dsn), 1)
    assert "Run `pgflow db upgrade" in said(pgflow(database_dsn, "--worker", names["worker"]), 1)
    migrations.upgrade(database_dsn, revision="0017")
    assert "too old to have roles" in said(pgflow(database_dsn, "--worker", names["worker"]), 1)
