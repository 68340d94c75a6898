"""Messages tell their place among those of their workflow, so that what is sent late can be told from what comes next.

Revision: 0012. Workers of before leave it out: theirs have no place, and are passed on as they come.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 12, 2
VERSION_BEFORE = 11

PLACE = (
    "Of two messages of a workflow the later one has the higher: the epoch, and a number of the worker's. Null: "
    "not known."
)


def upgrade() -> None:
    """Add the column."""
    op.add_column("messages", sa.Column("place", sa.BigInteger(), comment=PLACE), schema=_schema())
    _settle(VERSION)


def downgrade() -> None:
    """Drop it."""
    op.drop_column("messages", "place", schema=_schema())
    _settle(VERSION_BEFORE)


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _settle(version: int) -> None:
    quoted = '"' + _schema().replace('"', '""') + '"'
    op.execute(f"UPDATE {quoted}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")
