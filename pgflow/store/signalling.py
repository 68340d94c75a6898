"""Sending signals: statements for the clients and for workflows.

Ids are made by whoever sends, so that a signal whose answer was lost can be sent again. A signal is one inserted row
that takes no lock on its receiver; workers deliver it (`mailbox.py`). After the commit `mail` hints at it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from pgflow.store.channels import mail_channel
from pgflow.store.connections import statement
from pgflow.store.query import Query


class Sending(NamedTuple):
    """One signal to send: to a workflow, or to the oldest live one of a name whose tags contain `tags` (JSON text)."""

    id: UUID
    workflow_id: UUID | None
    workflow_name: str | None
    tags: str | None
    name: str
    body: str
    sender_id: UUID | None = None


class Sent(NamedTuple):
    """What came of sending a signal."""

    receiver: UUID | None
    """The workflow that receives it; None: there is none."""
    final: str | None
    """How the receiver has ended, if it has; a failed one keeps the signal for when it goes on."""
    worker: int
    """The worker that has the receiver, or had it last; 0: any."""

    @property
    def accepted(self) -> bool:
        """Whether somebody receives it."""
        return self.receiver is not None and self.final in (None, "failed")


def send(schema: str, signals: Sequence[Sending]) -> Query[list[Sent]]:
    """The statement that sends signals; sent twice is sent once.

    Example:
        query = send("pgflow", [Sending(uuid7(), workflow_id, None, None, "approved", '{"by":"eva"}')])
    """
    columns = list(zip(*signals, strict=True)) if signals else [()] * 7
    names = ("ids", "workflow_ids", "workflow_names", "tags", "names", "bodies", "sender_ids")
    params = dict(zip(names, map(list, columns), strict=True))
    return Query(statement("signal_send", schema), params, _sent)


def _sent(rows: Sequence[tuple[Any, ...]]) -> list[Sent]:
    return [Sent(*row[1:]) for row in rows]


def mail(schema: str, workers: Iterable[int], *, quick: bool = False) -> Query[None]:
    """The hint that something was sent to workflows that these workers have or had. After the commit, or in a caller's own.

    Args:
        quick: It is a transaction of its own, which need not wait for the disk.
    """
    text = statement("notify_quick" if quick else "notify", schema)
    payloads = [str(worker) for worker in sorted(set(workers))]
    return Query(text, {"channel": mail_channel(schema), "payloads": payloads}, _nothing)


def _nothing(rows: Sequence[tuple[Any, ...]]) -> None:
    return None
