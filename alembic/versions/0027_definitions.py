"""Workers publish what they know of workflows: the JSON Schemas of their arguments.

Revision: 0027. They stand with the worker, and go with it. The column is null for workers of before.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 27, 2
VERSION_BEFORE = 26


def upgrade() -> None:
    """Add the column."""
    column = sa.Column(
        "definitions",
        postgresql.JSON(),
        comment="The arguments of the workflows that it knows: JSON Schemas by name.",
    )
    op.add_column("workers", column, schema=_schema())
    _settle(VERSION)


def downgrade() -> None:
    """Remove it again."""
    op.drop_column("workers", "definitions", schema=_schema())
    _settle(VERSION_BEFORE)


def _settle(version: int) -> None:
    quoted = '"' + _schema().replace('"', '""') + '"'
    op.execute(f"UPDATE {quoted}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema
