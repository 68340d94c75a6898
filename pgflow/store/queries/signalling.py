"""Sending signals: statements for the clients and for workflows.

The sender makes the ids, so that a signal whose answer was lost can be sent again. A signal is one inserted row that
takes no lock on its receiver; workers deliver it (`deliveries.py`). After the commit `mail` hints at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pgflow.model.commands import Sending, Sent
from pgflow.store.database.channels import deadline_payload, mail_channel
from pgflow.store.database.connections import statement
from pgflow.store.database.pipeline import Statement
from pgflow.store.database.query import Query


def send(schema: str, signals: Sequence[Sending]) -> Query[list[Sent]]:
    """The statement that sends signals; sent twice is sent once.

    Example:
        query = send("pgflow", [Sending(uuid7(), workflow_id, None, None, "approved", '{"by":"eva"}')])
    """
    text = statement("signal_given", schema) + statement("signal_send", schema)
    return Query(text, columns_of(signals), _sent)


def send_called(schema: str, signals: Sequence[Sending], quiet: bool) -> Query[list[Sent]]:
    """The statement that sends signals by calling a function, for roles that may not write tables.

    Args:
        quiet: The function is not to notify.
    """
    return Query(statement("signal_called", schema), {**columns_of(signals), "quiet": quiet}, _sent)


def columns_of(signals: Sequence[Sending]) -> dict[str, list[Any]]:
    """The parameters that carry signals, by column."""
    columns: Sequence[Sequence[Any]] = list(zip(*signals, strict=True)) if signals else [()] * len(Sending._fields)
    names = ("ids", "workflow_ids", "workflow_names", "tags", "names", "bodies")
    return dict(zip(names, map(list, columns), strict=True))


def _sent(rows: Sequence[tuple[Any, ...]]) -> list[Sent]:
    return [Sent(*row[1:]) for row in rows]


def mail(schema: str, workers: Iterable[int]) -> Query[None]:
    """The hint that something was sent to workflows that these workers have or had. Send it after the commit, or within
    a caller's own transaction.
    """
    payloads = [str(worker) for worker in sorted(set(workers))]
    return Query(statement("notify", schema), {"channel": mail_channel(schema), "payloads": payloads}, _nothing)


def expect(schema: str, seconds: float) -> Query[None]:
    """The hint that a deadline was set, so many seconds from now."""
    params = {"channel": mail_channel(schema), "payloads": [deadline_payload(seconds)]}
    return Query(statement("notify", schema), params, _nothing)


def mail_behind(schema: str, signals: Sequence[Sending]) -> Statement:
    """The hint at signals, sent in one flush with them and right behind them, since the sender may be gone a moment
    later.
    """
    return statement("mail_hint", schema), {"channel": mail_channel(schema), "ids": [signal.id for signal in signals]}


def _nothing(rows: Sequence[tuple[Any, ...]]) -> None:
    return None
