"""Lists are by the time of dispatch, whatever the ids are: indexes for that order, of all workflows and of those of one name.

Revision: 0007. Children, and workflows that are given an id, have ids that say nothing of their age. Code of version 6 lists by id as before,
and more slowly by name: the index that it took is replaced. Building the two reads the table once each, while nothing is written to it.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 7, 2
VERSION_BEFORE = 6


def upgrade() -> None:
    """One index more, and one in another order."""
    schema = _schema()
    op.create_index("workflows_created", "workflows", ["created_at", "id"], schema=schema)
    op.drop_index("workflows_name", "workflows", schema=schema)
    op.create_index("workflows_name", "workflows", ["name", "created_at", "id"], schema=schema)
    _settle(VERSION)


def downgrade() -> None:
    """By id again."""
    schema = _schema()
    op.drop_index("workflows_name", "workflows", schema=schema)
    op.create_index("workflows_name", "workflows", ["name", "id"], schema=schema)
    op.drop_index("workflows_created", "workflows", schema=schema)
    _settle(VERSION_BEFORE)


def _settle(version: int) -> None:
    info = '"' + _schema().replace('"', '""') + '".schema_info'
    op.execute(f"UPDATE {info} SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema = op.get_context().version_table_schema
    assert schema is not None
    return schema
