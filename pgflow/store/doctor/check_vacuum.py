"""Checks of what keeps tables from staying small: transactions that stay open, and vacuum that does not keep up."""

from __future__ import annotations

from collections.abc import Sequence

from pgflow.model.diagnosis import Finding, Level
from pgflow.store.database.connections import quoted, statement
from pgflow.store.database.query import Query
from pgflow.store.doctor.check import Check, CheckContext, Row, age, some

OPEN = 60.0
"""Seconds that a transaction may hold back vacuum."""

OPEN_LONG = 3_600.0
"""Seconds after which it is an error: the tables that claims go through have grown by then."""

BEHIND = 1_000_000
"""Transactions by which a replication slot or a standby may hold it back."""

DEAD = 50_000
"""Dead rows that no table is remarked for."""

DEAD_TIMES = 5.0
"""Dead rows for each live one, beyond those."""

FROZEN = 1_000_000_000
"""Transactions since the oldest row that is not frozen: at 2,147,483,648 the server stops writing."""


def held_back(asked: CheckContext) -> Query[list[Finding]]:
    """Whether something holds back vacuum."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [_held(*row) for row in rows]

    return Query(statement("doctor_held_back", asked.schema), {"open": OPEN, "behind": BEHIND}, read)


def _held(
    kind: str | None, id: str, who: str | None, by: str | None, state: str | None, seconds: float | None, behind: int
) -> Finding:
    name = "vacuum"
    if kind is None:
        found = f"{behind} sessions of other roles, which this role may not look at: what they hold back is not known"
        return Finding(name, "info", "a role that sees all sessions", found, "GRANT pg_read_all_stats TO the role")
    level: Level = "error" if seconds is not None and seconds >= OPEN_LONG else "warning"
    if kind == "session":
        expected = f"transactions that end within {age(OPEN)}"
        found = (
            f'process {id} ("{who}" of {by}, {state or "at work"}) has a transaction open for {age(seconds)}: no row '
            "that died since can be removed, and claims get slower"
        )
        advice = f"let it end, or end it: SELECT pg_terminate_backend({id})"
    elif kind == "prepared":
        expected = f"prepared transactions that end within {age(OPEN)}"
        found = f'the transaction "{id}" of {by} has been prepared for {age(seconds)}, and nobody has ended it'
        advice = f"COMMIT PREPARED '{id}' or ROLLBACK PREPARED '{id}', as its coordinator has decided"
    elif kind == "slot":
        expected = f"replication slots that hold back at most {BEHIND:,} transactions"
        found = f'the {state} {who} slot "{id}" holds back {behind:,} transactions'
        advice = f"let its consumer catch up, or SELECT pg_drop_replication_slot('{id}') if it has none any more"
    else:
        expected = f"standbys that hold back at most {BEHIND:,} transactions"
        found = f'the standby "{id}" ({who}) holds back {behind:,} transactions (hot_standby_feedback)'
        advice = "end the long query on that standby (pg_stat_activity there)"
    return Finding(name, level, expected, found, advice, (id,))


def bloat(asked: CheckContext) -> Query[list[Finding]]:
    """Whether vacuum keeps up."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [_bloated(asked.schema, *row) for row in rows]

    params = {"schema": asked.schema, "least": DEAD, "times": DEAD_TIMES, "frozen": FROZEN}
    return Query(statement("doctor_bloat", asked.schema), params, read)


def _bloated(
    schema: str, table: str | None, live: int, dead: int, size: int | None, last: float | None, off: bool | None
) -> Finding:
    if table is None:
        found = (
            f"the oldest row that is not frozen is {live:,} transactions old (autovacuum_freeze_max_age is {dead:,})"
        )
        advice = "find what holds back vacuum (above), then VACUUM (FREEZE) the database's tables"
        return Finding("bloat", "error", f"at most {FROZEN:,} transactions", found, advice)
    place = f'{quoted(schema)}."{table}"'
    if off:
        found = f"autovacuum is off for {table}, which grows with every step ({dead:,} dead rows now)"
        advice = f"ALTER TABLE {place} RESET (autovacuum_enabled), or autovacuum = on in the server's configuration"
        return Finding("bloat", "error", "autovacuum", found, advice, (table,))
    when = "never" if last is None else f"{age(last)} ago"
    found = (
        f"{table} has {dead:,} dead rows and {live:,} live ones, in {(size or 0) / 2**20:,.0f} MB; last vacuumed: "
        f"{when}"
    )
    advice = (
        f"see that nothing holds back vacuum, then VACUUM {place}; a lower autovacuum_vacuum_cost_delay lets it keep up"
    )
    return Finding(
        "bloat", "warning", f"at most {DEAD_TIMES:g} dead rows for each live one", found, advice, some([table])
    )


VACUUM_CHECKS = (Check("vacuum", held_back), Check("bloat", bloat))
