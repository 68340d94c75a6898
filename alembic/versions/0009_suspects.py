"""Who is suspected of the deaths of worker processes.

Revision: 0009. Recovery notes with each workflow the deaths of the processes that held it; claims keep the suspects
apart. Nothing is rewritten: the columns are null for all others. Code of version 8 frees and claims as before, and
suspects nobody.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 9, 2
BEFORE = 8
IDS = postgresql.ARRAY(sa.BigInteger())


def upgrade() -> None:
    """Add the columns, and the index by which suspects are found."""
    schema = _schema()
    for column in (
        sa.Column(
            "suspicions",
            IDS,
            comment="Workers that died, or seemed to, while their process held this workflow, and it has recorded no "
            "progress since. Null: none.",
        ),
        sa.Column(
            "crashes",
            IDS,
            comment="Those of them whose process held nothing else, as far as they have not been counted as attempts "
            "of activities.",
        ),
        sa.Column(
            "presumed",
            sa.BigInteger(),
            comment="A worker whose lease ran out while its process held nothing else: counted if another such death "
            "follows.",
        ),
        sa.Column("suspected_at", sa.DateTime(timezone=True), comment="When the last of these deaths was noticed."),
    ):
        op.add_column("runs", column, schema=schema)
    op.create_index(
        "runs_suspected", "runs", ["queue", "name"], schema=schema, postgresql_where=sa.text("suspicions IS NOT NULL")
    )
    op.add_column(
        "workers", sa.Column("process", sa.UUID(), comment="The process: several workers may be in one."), schema=schema
    )
    op.add_column(
        "workers",
        sa.Column("held", sa.Integer(), comment="How many workflows its process held when it was found dead."),
        schema=schema,
    )
    _settle(schema, VERSION, COMPATIBLE_FROM)


def downgrade() -> None:
    """Remove them again: nobody is suspected any more."""
    schema = _schema()
    for column in ("held", "process"):
        op.drop_column("workers", column, schema=schema)
    op.drop_index("runs_suspected", "runs", schema=schema)
    for column in ("suspected_at", "presumed", "crashes", "suspicions"):
        op.drop_column("runs", column, schema=schema)
    _settle(schema, BEFORE, 2)


def _settle(schema: str, version: int, compatible_from: int) -> None:
    quoted = '"' + schema.replace('"', '""') + '"'
    op.execute(f"UPDATE {quoted}.schema_info SET version = {version}, compatible_from = {compatible_from}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema
