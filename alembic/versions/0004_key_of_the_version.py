"""A key for every table: databases that publish all of their tables refuse changes to rows without one.

Revision: 0004.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 4, 2


def upgrade() -> None:
    """The version is the key: there is one row."""
    info = _info()
    op.execute(f"ALTER TABLE {info} ADD CONSTRAINT schema_info_pkey PRIMARY KEY (version), REPLICA IDENTITY DEFAULT")
    op.execute(f"UPDATE {info} SET version = {VERSION}, compatible_from = {COMPATIBLE_FROM}")


def downgrade() -> None:
    """As it was, but that its row can be changed all the same."""
    info = _info()
    op.execute(f"UPDATE {info} SET version = 3, compatible_from = 2")
    op.execute(f"ALTER TABLE {info} DROP CONSTRAINT schema_info_pkey, REPLICA IDENTITY FULL")


def _info() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '".schema_info'
