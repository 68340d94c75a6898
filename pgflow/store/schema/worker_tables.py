"""The tables of the workers: those that live, and those of which a death is remembered."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Integer, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSON, UUID

from pgflow.store.schema.columns import TIME, column


def add_worker_tables(metadata: MetaData) -> None:
    """Add them."""
    Table(
        "workers",
        metadata,
        Column(
            "id",
            BigInteger(),
            Identity(always=True),
            primary_key=True,
            comment="The worker's number.",
        ),
        column("host", Text(), "The machine it runs on.", null=False),
        column("pid", Integer(), "Its process there.", null=False),
        column(
            "lock_key",
            BigInteger(),
            "The advisory lock that its heartbeat connection holds while it lives; null: none.",
        ),
        column("version", Text(), "The version of its code.", null=False),
        column("queues", ARRAY(Text()), "The queues that it serves.", null=False),
        column("started_at", TIME, "When it registered.", null=False, default="now()"),
        column("heartbeat_at", TIME, "Its last heartbeat.", null=False, default="now()"),
        column("expires_at", TIME, "When its leases end unless another heartbeat comes.", null=False),
        column("process", UUID(), "The process: several workers may be in one."),
        column("held", Integer(), "How many workflows its process held when it was found dead."),
        column("build", Text(), "The version of the application; null: it says none, and is older than any."),
        column("build_order", Text(collation="C"), "The build as a text by which builds are compared."),
        column("names", ARRAY(Text()), "The workflows that it knows."),
        column("concurrency", Integer(), "How many workflows it holds at once, at most."),
        column("definitions", JSON(), "The arguments of the workflows that it knows: JSON Schemas by name."),
        comment="One row for each worker process that is alive, or has died and not been buried yet.",
    )
    Table(
        "deaths",
        metadata,
        column("worker_id", BigInteger(), "The worker that died.", key=True),
        column("build", Text(), "Its build.", null=False),
        column("build_order", Text(collation="C"), "The build as a text by which builds are compared.", null=False),
        column("died_at", TIME, "When that was noticed.", null=False, default="now()"),
        comment="Workers that say their build and have died, of the last day. Builds whose workers die go before "
        "nobody.",
    )
