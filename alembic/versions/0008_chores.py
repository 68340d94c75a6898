"""Chores: what one worker at a time does for all. The first is to remove signals that were taken, or dropped, some time
ago.

Revision: 0008. Signals are found by walking through their table, a few pages at a time: an index on when they were
taken would cost each of them more than all the walks together. Code of before goes on removing some of them with the
turns of loops.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 8, 2


def upgrade() -> None:
    """Add the table, and the chore that there is."""
    schema = _schema()
    op.create_table(
        "chores",
        sa.Column(
            "name", sa.Text(), nullable=False, comment="signals: remove those that were taken or dropped some time ago."
        ),
        sa.Column(
            "holder", sa.UUID(), comment="Who does it, or did it last: a number that a worker draws at its start."
        ),
        sa.Column(
            "held_until", sa.DateTime(timezone=True), comment="Until when nobody else does it; null: anybody may."
        ),
        sa.Column(
            "next_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When it is due.",
        ),
        sa.Column("place", sa.BigInteger(), server_default=sa.text("0"), nullable=False, comment="How far it has got."),
        sa.PrimaryKeyConstraint("name"),
        schema=schema,
        comment="What one worker at a time does for all, by a lease on the database's clock.",
    )
    op.execute(f"ALTER TABLE {_quoted()}.chores SET (fillfactor = 50)")
    op.execute(f"INSERT INTO {_quoted()}.chores (name) VALUES ('signals')")
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {VERSION}, compatible_from = {COMPATIBLE_FROM}")


def downgrade() -> None:
    """Remove it."""
    op.drop_table("chores", schema=_schema())
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = 7, compatible_from = 2")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'
