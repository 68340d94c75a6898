"""Checks of the server and the schema: clocks, notifications, sessions, roles, indexes."""

from __future__ import annotations

from collections.abc import Sequence

from pgflow.model.diagnosis import Finding
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query
from pgflow.store.doctor.check import Check, CheckContext, Row, age, some
from pgflow.store.schema import compatibility
from pgflow.store.schema.roles import expected_functions, expected_rights
from pgflow.store.schema.versions import NEEDS, SCHEMA_VERSION

CLOCK_OFF = 5.0
"""Seconds that two clocks may differ."""

QUEUE_FULL = 0.25
"""The part of the server's queue of notifications that may be in use."""


def schema(name: str, found: compatibility.DatabaseState, info: tuple[int, int] | None) -> list[Finding]:
    """Whether server, schema and code go together.

    Args:
        name: the schema's.
        found: the server's version, and whether there is a schema.
        info: the schema's version and the oldest code that it is for.
    """
    upgrade = f"`pgflow db upgrade --schema {name}`"
    if found.server < compatibility.OLDEST_SERVER:
        oldest = compatibility.OLDEST_SERVER // 10000
        return [_schema(f"PostgreSQL {oldest} or later", f"PostgreSQL {found.server // 10000}", "upgrade the server")]
    if not found.migrated or info is None:
        return [_schema(f'a schema "{name}" of pgflow', "none", f"{upgrade}, or name the right schema with --schema")]
    version, compatible_from = info
    fits = f"a schema from version {NEEDS} on that is for code of version {SCHEMA_VERSION}"
    if version < NEEDS:
        return [_schema(fits, f"version {version}, which is too old for this code", upgrade)]
    if compatible_from > SCHEMA_VERSION:
        newer = f"version {version}, for code from version {compatible_from} on: this code is too old for it"
        return [_schema(fits, newer, "deploy newer code, or migrate down with the code that made the schema")]
    if version < SCHEMA_VERSION:
        older = f"version {version}: this code works on it, but is of version {SCHEMA_VERSION}"
        return [Finding("schema", "warning", "the schema of this code, or a later one", older, upgrade)]
    if version > SCHEMA_VERSION:
        newer = f"version {version}: newer than this code, of version {SCHEMA_VERSION}, which works on it"
        advice = "nothing, if a deployment is under way; else deploy the code that goes with it"
        return [Finding("schema", "info", "the schema of this code", newer, advice)]
    return []


def _schema(expected: str, found: str, advice: str) -> Finding:
    return Finding("schema", "error", expected, found, advice)


def clock(asked: CheckContext) -> Query[list[Finding]]:
    """Whether this machine's clock shows the server's time, and the server's has not been set back."""
    before = asked.clock()

    def read(rows: Sequence[Row]) -> list[Finding]:
        ((at, ahead, seconds, ids),) = rows
        after = asked.clock()
        found = []
        # What is asked was at some moment between the two: only what lies outside is known to be wrong.
        off = before - at if at < before else at - after if at > after else 0.0
        if off > CLOCK_OFF:
            way = "ahead of" if at < before else "behind"
            found.append(
                Finding(
                    "clock",
                    "warning",
                    f"clocks that differ by at most {CLOCK_OFF:g} s",
                    f"this machine's clock is {age(off)} {way} the database's. Workflows go by the database's, but the "
                    "times in logs, and moments that programs compute (`run_at`), are wrong by so much",
                    "set the clock of this machine, or of the server (`timedatectl`, chrony)",
                )
            )
        if ahead:
            found.append(
                Finding(
                    "clock",
                    "error",
                    "a clock of the server that only goes forward",
                    f"it was set back, or another server took over: {ahead} workers have sent a heartbeat up to "
                    f"{age(seconds)} ahead of its time. Leases last longer, and work comes later, by so much",
                    "set the clock of the server (`timedatectl`, chrony)",
                    some(ids),
                )
            )
        return found

    return Query(statement("doctor_clock", asked.schema), {"off": CLOCK_OFF}, read)


def notifications(asked: CheckContext) -> Query[list[Finding]]:
    """Whether workers and clients can be notified."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        ((off, used, roles),) = rows
        found = []
        polled = "Work is found by polling alone, up to `poll` (1 s) later"
        if off:
            advice = (
                "find who sets pgflow.hints: \\drds in psql; ALTER ROLE ... RESET pgflow.hints, ALTER DATABASE likewise"
            )
            found.append(_told(f"pgflow.hints is off for this role and database. {polled}", advice))
        if roles:
            advice = f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO {', '.join(map(_ident, roles))}"
            found.append(_told(f"roles that may not execute pg_notify. {polled}", advice, roles))
        if used > QUEUE_FULL:
            advice = (
                "end the session that listens and is in a transaction: SELECT pid, application_name FROM "
                "pg_stat_activity "
                "WHERE state LIKE 'idle in transaction%' ORDER BY xact_start"
            )
            level = f"the server's queue of notifications is {used:.0%} full: when it is full, commits fail"
            found.append(Finding("notifications", "error", f"a queue below {QUEUE_FULL:.0%}", level, advice))
        return found

    return Query(statement("doctor_notifications", asked.schema), {}, read)


def _told(found: str, advice: str, where: Sequence[str] = ()) -> Finding:
    return Finding("notifications", "warning", "notifications that can be sent", found, advice, some(where))


def _ident(name: str) -> str:
    return quoted(name)


def sessions(asked: CheckContext) -> Query[list[Finding]]:
    """Whether there is a pooler in between."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        ((workers, ids),) = rows
        found = []
        if asked.shared:
            found.append(
                Finding(
                    "pooler",
                    "info",
                    "a connection to the server itself",
                    "this connection goes through a pooler in transaction mode: statements are not prepared, and who "
                    "waits for ends polls",
                    "nothing, if that is meant; else name the server itself in the DSN",
                )
            )
        if workers:
            found.append(
                Finding(
                    "pooler",
                    "warning",
                    "workers with sessions of their own",
                    f"{workers} workers hold no advisory lock: they go through a pooler in transaction mode, "
                    "or may not take one. "
                    "That one of them was killed is noticed when its lease ends, and work is found by polling",
                    "give workers a DSN of the server itself, or the right: GRANT EXECUTE ON FUNCTION "
                    "pg_catalog.pg_try_advisory_lock(bigint) TO ROLE",
                    some(ids),
                )
            )
        return found

    return Query(statement("doctor_sessions", asked.schema), {}, read)


def roles(asked: CheckContext) -> Query[list[Finding]]:
    """Whether the roles that were granted rights have these, and no more."""
    rights = [*expected_rights()]
    functions = [*expected_functions()]
    params = {
        "schema": asked.schema,
        "runs": f"{quoted(asked.schema)}.runs",
        "kinds": [kind for kind, *_ in rights],
        "payloads": [payloads for _, payloads, *_ in rights],
        "relations": [name for *_, name, _ in rights],
        "rights": [right for *_, right in rights],
        "callers": [kind for kind, _ in functions],
        "functions": [name for _, name in functions],
    }

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [_role(asked.schema, *row) for row in rows]

    return Query(statement("doctor_roles", asked.schema), params, read)


def _role(schema: str, what: str, role: str | None, kind: str | None, which: list[str] | None) -> Finding:
    where = () if role is None else (role,)
    if what == "gone":
        found = f"the role {role}, granted the rights of a {kind}, is no longer there"
        advice = f"create it again, or DELETE FROM {quoted(schema)}.roles WHERE role = '{role}'"
        return Finding("roles", "info", "roles that are there", found, advice, where)
    if what == "owner":
        found = f"the {kind} {role} is a superuser, or a member of the tables' owner: it can alter the schema"
        advice = "REVOKE that membership, ALTER ROLE ... NOSUPERUSER, or grant another role"
        return Finding("roles", "warning", "roles that own nothing", found, advice, where)
    if what == "lacks":
        found = f"the {kind} {role} lacks {', '.join(some(which))}{' and more' if len(which or ()) > 5 else ''}"
        advice = (
            f"`pgflow db roles --schema {schema} --apply`, which grants all roles of the table `roles` their rights"
        )
        return Finding("roles", "error", f"all rights of a {kind}", found, advice, where)
    found = "functions that run with the owner's rights, and that every role may execute"
    advice = f"REVOKE EXECUTE ON FUNCTION ... FROM PUBLIC, in the schema {quoted(schema)}"
    return Finding(
        "roles", "error", "functions that only operators and senders may execute", found, advice, some(which)
    )


def indexes(asked: CheckContext) -> Query[list[Finding]]:
    """Whether all indexes are whole."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        ((names,),) = rows
        if not names:
            return []
        found = "indexes whose building was interrupted: they are kept up, and not used"
        advice = f"`pgflow db upgrade --schema {asked.schema}` builds them anew, beside whoever works"
        return [Finding("indexes", "warning", "indexes that are valid", found, advice, some(names))]

    return Query(statement("doctor_indexes", asked.schema), {"schema": asked.schema}, read)


SERVER_CHECKS = (
    Check("clock", clock),
    Check("notifications", notifications, since=18),
    Check("pooler", sessions),
    Check("roles", roles, since=18),
    Check("indexes", indexes),
)
