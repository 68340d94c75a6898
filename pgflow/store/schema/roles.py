"""What roles of the database may do with a schema: a worker, a reader, an operator, a sender.

Every table, view and function is classified here, and a test compares that with a migrated schema: what is new must be
put somewhere. Operators and senders have no rights on tables: they call functions that run with the rights of the
schema's owner (SECURITY DEFINER). These are made so, and taken from everybody, with the first role that is granted
something; until then they run with their caller's rights, for those who were granted rights on tables by hand. What was
granted is noted in the table `roles`, so that a migration gives the same roles what it adds.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from psycopg.sql import SQL, Composable, Identifier, Literal

from pgflow.errors import PgflowError, SchemaOutdated
from pgflow.store.database.connections import connect_to_migrate
from pgflow.store.database.pooler import Connection
from pgflow.store.schema import migration_run, version_table

KINDS = ("worker", "reader", "operator", "sender")

_ROWS = "SELECT, INSERT, UPDATE, DELETE"
_READ = "SELECT"


class Relation(NamedTuple):
    """Who may do what with a table or view.

    Attributes:
        worker: What workers may do.
        payloads: The columns that hold what applications pass around: readers see them only if they are told to be.
        everybody: Whether operators and senders read it too, to see whether the schema fits their code.
    """

    worker: str
    payloads: frozenset[str] = frozenset()
    everybody: bool = False


_STEP = frozenset({"input", "output", "error", "turn_state", "loop_state"})

RELATIONS: Mapping[str, Relation] = {
    "workflows": Relation(_ROWS, frozenset({"input", "output", "error", "state"})),
    "runs": Relation(_ROWS),
    "ends": Relation(_ROWS),
    "finders": Relation(_ROWS),
    "retention": Relation(_ROWS),
    "events": Relation(_ROWS, _STEP),
    "forgotten_events": Relation(_ROWS, _STEP),
    "signals": Relation(_ROWS, frozenset({"body", "problem"})),
    "requests": Relation(_ROWS),
    "messages": Relation(_ROWS, frozenset({"body"})),
    "workers": Relation(_ROWS),
    "chores": Relation(_ROWS),
    "deaths": Relation(_ROWS),
    "audit": Relation(
        "SELECT, DELETE"
    ),  # its rows are written by the functions that operate, with their owner's rights
    "roles": Relation(_READ),
    "schema_info": Relation(_READ, everybody=True),
    "pgflow_version": Relation(_READ, everybody=True),
    "history": Relation(_READ, _STEP),
    "workflow_overview": Relation(_READ, frozenset({"input", "output", "error", "state"})),
    "dead_signals": Relation(_READ, frozenset({"body", "problem"})),
}
"""Tables and views by name."""

_OPERATORS = frozenset({"worker", "operator"})
_WORKERS = frozenset({"worker"})
_SENDERS = frozenset({"worker", "sender"})
_ANYBODY = frozenset(KINDS)
_NOBODY: frozenset[str] = frozenset()

FUNCTIONS: Mapping[str, frozenset[str]] = {
    "cancel": _OPERATORS,
    "drop_signal": _OPERATORS,
    "fork": _OPERATORS,
    "operate_many": _OPERATORS,
    "pass_deadlines": _OPERATORS,
    "pause": _OPERATORS,
    "prune": _OPERATORS,
    "redeliver": _OPERATORS,
    "reset_retention": _OPERATORS,
    "resume": _OPERATORS,
    "retry": _OPERATORS,
    "rewind": _OPERATORS,
    "set_retention": _OPERATORS,
    "terminate": _OPERATORS,
    "update_workflow": _OPERATORS,
    "wake": _OPERATORS,
    "dispatch": _SENDERS,
    "dispatch_once": _SENDERS,
    "signal": _SENDERS,
    "signal_once": _SENDERS,
    "remove_workflows": _WORKERS,
    # These tell nothing, and change nothing, that their caller could not do without them.
    "display_location": _ANYBODY,
    "error_type": _ANYBODY,
    "find_live": _ANYBODY,
    "may_hint": _ANYBODY,
    "retained_for": _ANYBODY,
    "uuid7": _ANYBODY,
    # Parts of the functions above, which call them as their owner. Some skip checks that those have made.
    "copy_history": _NOBODY,
    "dead_signal": _NOBODY,
    "end_cancelled": _NOBODY,
    "end_timed_out": _NOBODY,
    "forget_end": _NOBODY,
    "hint_at_deadline": _NOBODY,
    "may_await": _NOBODY,
    "retention_seconds": _NOBODY,
    "must_exist": _NOBODY,
    "return_signals": _NOBODY,
    "send_signal": _NOBODY,
    "turn_location": _NOBODY,
    "turn_of": _NOBODY,
    "undo_history": _NOBODY,
    "write_audit": _NOBODY,
}
"""Who may call which functions, by name; of one name all."""


def with_owners_rights() -> set[str]:
    """The functions that run with the rights of the schema's owner, and are not everybody's to call."""
    return {name for name, kinds in FUNCTIONS.items() if kinds in (_OPERATORS, _SENDERS, _WORKERS)}


def expected_rights() -> Iterable[tuple[str, bool, str, str]]:
    """For each kind: rights on whole tables and views, and whether only those have them that see payloads."""
    for name, relation in RELATIONS.items():
        for right in relation.worker.split(", "):
            yield "worker", False, name, right
        yield "reader", bool(relation.payloads), name, _READ
        if relation.everybody:
            yield "operator", False, name, _READ
            yield "sender", False, name, _READ


def expected_functions() -> Iterable[tuple[str, str]]:
    """For each kind: the functions that it may call."""
    for name, kinds in FUNCTIONS.items():
        for kind in sorted(kinds):
            yield kind, name


class Grant(NamedTuple):
    """One role, and what it is to be."""

    role: str
    kind: str
    payloads: bool = False
    """Of a reader: whether it sees payloads."""


class _Found(NamedTuple):
    """What a schema holds."""

    relations: dict[str, list[str]]
    """Tables and views that are classified, with their columns."""
    functions: list[tuple[str, str]]
    """Functions that are classified: name, and the quoted name with the types of its parameters."""


def plan(dsn: str, schema: str, grants: Sequence[Grant]) -> list[str]:
    """The statements that make these roles what they are to be, and take everything else in the schema from them.

    Args:
        grants: A role may stand there more than once. None at all: those that were granted last.

    Raises:
        PgflowError: A role is not there, or could change the schema whatever is granted.
        SchemaOutdated: The schema has no table `roles`.
        psycopg.OperationalError: The database cannot be reached.

    Example:
        for statement in plan(dsn, "pgflow", [Grant("shop_worker", "worker")]):
            print(statement + ";")
    """
    with connect_to_migrate(dsn) as connection:
        return _planned(connection, schema, grants)


def apply(dsn: str, schema: str, grants: Sequence[Grant]) -> list[str]:
    """Execute what `plan` gives, in one transaction, and give it back; raises as `plan` does.

    Raises:
        PgflowError: Whoever asks may not grant.
    """
    with connect_to_migrate(dsn) as connection:
        migration_run.alone(connection, schema, time.monotonic() + migration_run.PATIENCE)
        statements = _planned(connection, schema, grants)
        refused = connection.execute(
            "SELECT current_user, r.rolname FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner "
            "WHERE c.oid = %s::regclass AND NOT pg_has_role(c.relowner, 'USAGE')",
            [f"{_name(schema, 'runs').as_string()}"],
        ).fetchone()
        if refused is not None:
            raise PgflowError(
                f'the role "{refused[0]}" may not grant rights on the schema "{schema}": expected its owner '
                f'"{refused[1]}", a member of it, or a superuser. Nothing was changed.'
            )
        for statement in statements:
            connection.execute(statement.encode())
        return statements


def renew(connection: Connection, schema: str) -> None:
    """Grant the roles of the table `roles` what has been added to the schema, within the transaction of a migration."""
    if connection.execute("SELECT to_regclass(%s)", [_name(schema, "roles").as_string()]).fetchone() == (None,):
        return
    if not (granted := _granted(connection, schema)):
        return
    found = _look(connection, schema)
    statements = [*_closes(connection, schema, found, [grant.role for grant in granted])]
    for grant in _granted(connection, schema, only_present=True):
        statements.extend(_grants(schema, found, grant))
    for statement in statements:
        connection.execute(statement.as_string(connection).encode())


def _planned(connection: Connection, schema: str, grants: Sequence[Grant]) -> list[str]:
    if version_table.look(connection, schema).revision is None:
        raise SchemaOutdated(
            f'the database has no pgflow schema "{schema}". Run `pgflow db upgrade --schema {schema}` first, or name '
            "the right schema."
        )
    if connection.execute("SELECT to_regclass(%s)", [_name(schema, "roles").as_string()]).fetchone() == (None,):
        raise SchemaOutdated(f'the schema "{schema}" is too old to have roles. Run `pgflow db upgrade` first.')
    grants = grants or _granted(connection, schema)
    if not grants:
        raise PgflowError(
            f'no roles were granted anything on the schema "{schema}" yet: name some, such as '
            "--worker shop_worker --reader shop_reader"
        )
    names = list(dict.fromkeys(grant.role for grant in grants))
    _check(connection, schema, names)
    found = _look(connection, schema)
    others = [grant.role for grant in _granted(connection, schema)]
    statements: list[Composable] = [*_closes(connection, schema, found, [*names, *others])]
    for role in names:
        statements.extend(_revokes(schema, found, role))
    for role in names:
        own = [grant for grant in grants if grant.role == role]
        for grant in own:
            statements.extend(_grants(schema, found, grant))
        statements.append(_noted(schema, role, own))
    return [statement.as_string(connection) for statement in statements]


def _check(connection: Connection, schema: str, names: list[str]) -> None:
    rows = connection.execute(
        "SELECT given.name, r.oid IS NOT NULL, coalesce(r.rolsuper, false), "
        "r.oid IS NOT NULL AND pg_has_role(r.oid, c.relowner, 'MEMBER'), o.rolname "
        "FROM unnest(%s::text[]) AS given (name) "
        "JOIN pg_class AS c ON c.oid = %s::regclass JOIN pg_roles AS o ON o.oid = c.relowner "
        "LEFT JOIN pg_roles AS r ON r.rolname = given.name ORDER BY 1",
        [names, _name(schema, "runs").as_string()],
    ).fetchall()
    missing = [name for name, there, *_ in rows if not there]
    if missing:
        shown = ", ".join(f'"{name}"' for name in missing)
        made = "; ".join(SQL("CREATE ROLE {} LOGIN").format(Identifier(name)).as_string(connection) for name in missing)
        raise PgflowError(
            f"expected roles of this server, found none called {shown}. Nothing was changed: create what is missing "
            f"first ({made}), or correct the name (roles that were made without quotes have lower-case names)."
        )
    for name, _, superuser, owner, owned_by in rows:
        if superuser:
            raise PgflowError(
                f'the role "{name}" is a superuser, which no grant restricts. Nothing was changed: expected a role '
                "without such rights."
            )
        if owner:
            raise PgflowError(
                f'the role "{name}" owns the tables of the schema "{schema}", or is a member of "{owned_by}", which '
                "does: it could change them whatever is granted. Nothing was changed: expected another role."
            )


def _look(connection: Connection, schema: str) -> _Found:
    relations: dict[str, list[str]] = {}
    for name, column in connection.execute(
        "SELECT c.relname, a.attname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
        "WHERE n.nspname = %s AND c.relkind IN ('r', 'v') AND c.relname = ANY (%s) ORDER BY c.relname, a.attnum",
        [schema, list(RELATIONS)],
    ):
        relations.setdefault(name, []).append(column)
    functions = connection.execute(
        "SELECT p.proname, pg_get_function_identity_arguments(p.oid) FROM pg_proc AS p "
        "JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = ANY (%s) ORDER BY 1, 2",
        [schema, list(FUNCTIONS)],
    ).fetchall()
    return _Found(relations, [(name, f"{_name(schema, name).as_string()}({types})") for name, types in functions])


def _closes(connection: Connection, schema: str, found: _Found, named: list[str]) -> Iterable[Composable]:
    """Have functions run with the rights of their owner, and take them from everybody. Who could do by hand what they
    do, by rights on tables that were not granted here, may call them.
    """
    owners = with_owners_rights()
    closed = [one for name, one in found.functions if FUNCTIONS[name] != _ANYBODY]
    for name, signature in found.functions:
        if name in owners:
            yield SQL("ALTER FUNCTION {} SECURITY DEFINER").format(_signature(signature))
    yield SQL("REVOKE ALL ON FUNCTION {} FROM PUBLIC").format(SQL(", ").join(map(_signature, closed)))
    by_hand = connection.execute(
        "SELECT DISTINCT c.relname, a.privilege_type, coalesce(r.rolname, '') "
        "FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
        "CROSS JOIN LATERAL aclexplode(c.relacl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee "
        "WHERE n.nspname = %s AND (c.relname, a.privilege_type) IN (('runs', 'INSERT'), ('runs', 'UPDATE'), "
        "('signals', 'INSERT')) AND a.grantee <> c.relowner AND (a.grantee = 0 OR r.oid IS NOT NULL) "
        "AND coalesce(r.rolname, '') <> ALL (%s) ORDER BY 3, 1, 2",
        [schema, named],
    ).fetchall()
    for table, right, role in by_hand:
        called = [one for name, one in found.functions if name in owners and _by_hand(name) == (table, right)]
        yield SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(
            SQL(", ").join(map(_signature, called)), Identifier(role) if role else SQL("PUBLIC")
        )


def _by_hand(function: str) -> tuple[str, str]:
    """The right on a table with which somebody could do by hand what a function does."""
    if function.startswith("signal"):
        return "signals", "INSERT"
    return "runs", "INSERT" if function.startswith("dispatch") else "UPDATE"


def _revokes(schema: str, found: _Found, role: str) -> Iterable[Composable]:
    who = Identifier(role)
    tables = SQL(", ").join(_name(schema, name) for name in found.relations)
    functions = SQL(", ").join(_signature(signature) for _, signature in found.functions)
    yield SQL("REVOKE ALL ON TABLE {} FROM {}").format(tables, who)
    yield SQL("REVOKE ALL ON FUNCTION {} FROM {}").format(functions, who)


def _grants(schema: str, found: _Found, grant: Grant) -> Iterable[Composable]:
    who = Identifier(grant.role)
    yield SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(schema), who)
    for rights in (_ROWS, "SELECT, DELETE", _READ):
        tables = [name for name in found.relations if _rights(grant, RELATIONS[name]) == rights]
        if tables:
            yield SQL("GRANT {} ON TABLE {} TO {}").format(
                _words(rights), SQL(", ").join(_name(schema, name) for name in tables), who
            )
    if grant.kind == "reader" and not grant.payloads:
        for name, columns in found.relations.items():
            if payloads := RELATIONS[name].payloads:
                shown = SQL(", ").join(Identifier(column) for column in columns if column not in payloads)
                yield SQL("GRANT SELECT ({}) ON TABLE {} TO {}").format(shown, _name(schema, name), who)
    called = [signature for name, signature in found.functions if grant.kind in FUNCTIONS[name]]
    yield SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(SQL(", ").join(_signature(one) for one in called), who)


def _rights(grant: Grant, relation: Relation) -> str | None:
    """What a role of that kind may do with the whole of a table or view."""
    if grant.kind == "worker":
        return relation.worker
    if grant.kind == "reader":
        return _READ if grant.payloads or not relation.payloads else None
    return _READ if relation.everybody else None


def _noted(schema: str, role: str, own: Sequence[Grant]) -> Composable:
    """Note what a role was granted, in place of what it was before."""
    rows = SQL(", ").join(
        SQL("({}, {}, {})").format(Literal(role), Literal(grant.kind), Literal(grant.payloads)) for grant in own
    )
    table = _name(schema, "roles")
    return SQL(
        "WITH before AS (DELETE FROM {} WHERE role = {} AND kind <> ALL ({})) "
        "INSERT INTO {} (role, kind, payloads) VALUES {} "
        "ON CONFLICT (role, kind) DO UPDATE SET payloads = excluded.payloads, granted_at = now()"
    ).format(table, Literal(role), Literal([grant.kind for grant in own]), table, rows)


def _granted(connection: Connection, schema: str, only_present: bool = False) -> list[Grant]:
    # A role that was dropped has lost the USAGE that it was granted: another of its name is not it.
    present = SQL(
        "WHERE EXISTS (SELECT FROM pg_roles AS r CROSS JOIN pg_namespace AS n "
        "CROSS JOIN LATERAL aclexplode(n.nspacl) AS a "
        "WHERE r.rolname = g.role AND n.nspname = {} AND a.grantee = r.oid)"
    ).format(Literal(schema))
    where = present if only_present else SQL("")
    query = SQL("SELECT g.role, g.kind, g.payloads FROM {} AS g {} ORDER BY 1, 2").format(_name(schema, "roles"), where)
    return [Grant(*row) for row in connection.execute(query)]


def _name(schema: str, name: str) -> Identifier:
    return Identifier(schema, name)


def _signature(signature: str) -> SQL:
    return SQL(signature.replace("{", "{{").replace("}", "}}"))


def _words(rights: str) -> SQL:
    return SQL(rights)
