"""The tables that say how long what has ended is kept, and for whom."""

from __future__ import annotations

from sqlalchemy import Double, Index, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from pgflow.store.schema.columns import TIME, column


def add_keeping(metadata: MetaData) -> None:
    """Add them.

    Example:
        add_keeping(MetaData(schema="pgflow"))
    """
    Table(
        "finders",
        metadata,
        column("workflow_id", UUID(), "The workflow that was found.", key=True),
        column("finder_id", UUID(), "Who found it, or is a fork of one who has it.", key=True),
        column("location", Text(collation="C"), "Where the step stands that found it; empty: not known.", key=True),
        Index("finders_finder", "finder_id"),
        comment="Who may await a workflow though they are not its parent: they found it when they dispatched a unique "
        "one, or are forks. Gone with either.",
    )
    Table(
        "retention",
        metadata,
        column("name", Text(), "The workflows' name; *: all that have nothing of their own.", key=True),
        column("set_by", Text(), "operator, or code: declared by workers that know it.", key=True),
        column(
            "keep",
            Double(),
            "Seconds that one is kept after it has completed or was cancelled; infinity: for ever; null: not said "
            "here.",
        ),
        column("failed", Double(), "Likewise after it has failed."),
        column("changed_at", TIME, "When this was said.", null=False, default="now()"),
        comment="How long workflows are kept once they have ended. What is not said by an operator for the name, or "
        "else by its code, is said by the operator for *; or they stay for ever.",
    )
