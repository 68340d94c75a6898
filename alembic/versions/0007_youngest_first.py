"""Lists are by the time of dispatch, whatever the ids are: indexes for that order, of all workflows and of those of one
name.

Revision: 0007. Children, and workflows that are given an id, have ids that say nothing of their age. Code of version 6
lists by id as before, and more slowly by name: the index that it took is replaced. To build the two reads all of the
table: where that is large the upgrade does it afterwards, beside whoever works, and until then lists are slow.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 7, 2
VERSION_BEFORE = 6
FEW = 32 << 20
"""Bytes of a table that are read in a moment."""


def upgrade() -> None:
    """One index more, and one in another order."""
    workflows = _quoted() + ".workflows"
    literal = workflows.replace("'", "''")
    op.drop_index("workflows_name", "workflows", schema=_schema())
    op.execute(
        f"DO $do$ BEGIN IF pg_relation_size('{literal}') < {FEW} THEN "
        f"CREATE INDEX workflows_created ON {workflows} (created_at, id); "
        f"CREATE INDEX workflows_name ON {workflows} (name, created_at, id); END IF; END $do$"
    )
    _settle(VERSION)


def downgrade() -> None:
    """By id again."""
    schema = _schema()
    for name in ("workflows_name", "workflows_created"):
        op.drop_index(name, "workflows", schema=schema, if_exists=True)
    op.create_index("workflows_name", "workflows", ["name", "id"], schema=schema)
    _settle(VERSION_BEFORE)


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema
