"""Checks of the work: what nobody takes, workers that are gone, signals that arrive nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from uuid import UUID

from pgflow.model.diagnosis import Finding, Level
from pgflow.store.database.connections import statement
from pgflow.store.database.query import Query
from pgflow.store.doctor.check import Check, CheckContext, Row, age, many, some

DUE = 60.0
"""Seconds that work may be due before it is taken."""

GRACE = 3.0
"""Seconds after which others would have taken over what a dead worker held."""

OFTEN = 3
"""Deaths of processes that one workflow has been part of."""

UNDELIVERED = 60.0
"""Seconds that a signal may wait for a worker to deliver it."""

LATE = 3_600.0
"""Seconds that upkeep may be due."""

COUNTED = 100_000
"""The most due workflows that are counted, over all queues."""

LEVELS = 1_000
"""The most pairs of a queue and a name that are looked at."""

LETTERS = 10_000
"""The most signals that were set aside, and suspects, that are looked at."""


def due(asked: CheckContext) -> Query[list[Finding]]:
    """Whether work that is due is taken."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [_due(*row) for row in rows]

    return Query(statement("doctor_due", asked.schema), {"due": DUE, "levels": LEVELS, "bound": COUNTED}, read)


def _due(
    queue: str,
    name: str,
    runs: int,
    seconds: float,
    ids: Sequence[str],
    serving: int,
    is_known: bool,
    running: int,
    workers: int,
) -> Finding:
    level: Level = "error"
    option = "" if queue == "default" else f" --queue {quote(queue)}"
    start = f"`pgflow worker MODULE{option}`, with the module in which {name} is declared"
    if workers == 0:
        why, advice = "there is no worker", start
    elif serving == 0:
        why, advice = f'none of {workers} workers serves the queue "{queue}"', start
    elif not is_known:
        why = (
            f'{serving} workers serve the queue "{queue}", and none of them knows the name '
            "(code of before schema 0026 does not say what it knows)"
        )
        advice = (
            f"deploy the code that declares it ({start}), or end what is no longer wanted: `pgflow workflow "
            "terminate --name "
            f"{quote(name)}`"
        )
    else:
        level = "warning"
        why = f'{serving} workers serve the queue "{queue}" and are full, or slow: {running:,} workflows run'
        advice = f"more of them (`pgflow worker MODULE{option} --processes N`), or more `--concurrency`"
    found = f"{many(runs, COUNTED)} workflows {name} in the queue {queue} have been due for up to {age(seconds)}: {why}"
    return Finding("work", level, f"work that is taken within {age(DUE)}", found, advice, some(ids))


def workers(asked: CheckContext) -> Query[list[Finding]]:
    """Whether workers are gone, or stand still."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [_worker(*row) for row in rows]

    return Query(statement("doctor_workers", asked.schema), {"grace": GRACE}, read)


def _worker(
    id: int, host: str, pid: int, silent: float, has_expired: bool, is_there: bool | None, held: int, others: int
) -> Finding:
    who = f"the worker {id} (process {pid} on {host})"
    holds = f"{many(held, 10_000)} workflows" if held else "nothing"
    level: Level = "error" if held and (has_expired or not is_there) else "warning"
    if is_there:
        found = (
            f"{who} has sent no heartbeat for {age(silent)}, though its session is there: it stands still. It "
            f"holds {holds}"
        )
        advice = (
            f"look at the process: stopped (`kill -CONT {pid}`), swapping, or code that blocks; else end it: "
            f"`kill -9 {pid}`"
        )
    elif others == 0:
        found = f"{who} is gone since {age(silent)}, holds {holds}, and there is no other worker to take over"
        advice = "start a worker: `pgflow worker MODULE`"
    else:
        found = f"{who} is gone since {age(silent)}, holds {holds}, and none of {others} workers has taken over"
        advice = "see the logs of the other workers; `pgflow doctor` again in a moment"
    return Finding("workers", level, "workers that send heartbeats", found, advice, (str(id),))


def suspects(asked: CheckContext) -> Query[list[Finding]]:
    """Whether workflows kill the processes that run them."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [
            Finding(
                "suspects",
                "warning",
                "processes that live on",
                f"{times} processes died while they ran the workflow {id} ({name}, {status}), and it has got "
                "no further",
                f"see the log of its worker; `pgflow workflow pause {id}` or `pgflow workflow terminate {id}` "
                "until its code is mended",
                (str(id),),
            )
            for id, name, times, status in rows
        ]

    return Query(statement("doctor_suspects", asked.schema), {"bound": LETTERS, "often": OFTEN}, read)


def letters(asked: CheckContext) -> Query[list[Finding]]:
    """Whether signals were set aside."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        return [_dead(*row) for row in rows]

    return Query(statement("doctor_letters", asked.schema), {"bound": LETTERS}, read)


def _dead(name: str, count: int, ids: Sequence[UUID], receivers: Sequence[UUID]) -> Finding:
    counted = many(count, LETTERS)
    found = f'{counted} signals "{name}" were set aside: their bodies do not fit (the first: to {receivers[0]})'
    advice = (
        f"`pgflow signal list --dead --name {quote(name)}` shows why; then `pgflow signal redeliver {ids[0]} "
        "[BODY]` or "
        f"`pgflow signal drop {ids[0]}`"
    )
    return Finding("dead letters", "warning", "signals that can be read", found, advice, some(ids))


def mail(asked: CheckContext) -> Query[list[Finding]]:
    """Whether signals, requests to cancel and the ends of children are delivered."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        found = []
        for kind, id, receiver, seconds, live in rows:
            if seconds < UNDELIVERED:
                continue
            why = f"{live} workers have not delivered it" if live else "there is no worker to deliver it"
            text = f"the oldest {kind} ({id}) to the workflow {receiver} has waited for {age(seconds)}: {why}"
            advice = (
                "find who has the receiver's row locked: SELECT pid, state, now() - xact_start, query FROM "
                "pg_stat_activity "
                "ORDER BY xact_start"
                if live
                else "start a worker: `pgflow worker MODULE`"
            )
            expected = f"delivery within {age(UNDELIVERED)}"
            found.append(Finding("mail", "warning" if live else "error", expected, text, advice, (str(receiver),)))
        return found

    return Query(statement("doctor_mail", asked.schema), {}, read)


def chores(asked: CheckContext) -> Query[list[Finding]]:
    """Whether upkeep is done."""

    def read(rows: Sequence[Row]) -> list[Finding]:
        expected = f"upkeep that is done within {age(LATE)}"
        advice = "see the logs of the workers: one of them does it at a time"
        return [
            Finding("upkeep", "warning", expected, f'"{name}" has been due for {age(late)}', advice, (name,))
            for name, late in rows
        ]

    return Query(statement("doctor_chores", asked.schema), {"late": LATE}, read)


WORK_CHECKS = (
    Check("work", due),
    Check("workers", workers),
    Check("suspects", suspects),
    Check("dead letters", letters),
    Check("mail", mail),
    Check("upkeep", chores),
)
