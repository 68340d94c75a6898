"""A fork copies what came before its place in both orders, that of locations and that of results: in concurrent code
what came later in the second may have come because of what is dropped.

Revision: 0010. One function is replaced.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 10, 2
VERSION_BEFORE = 9
PLACE = Path(__file__).resolve().parent.parent


def wake_channel(schema: str) -> str:
    return "pgflow_wake_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def upgrade() -> None:
    """Replace it."""
    _replace("objects_0010", VERSION)


def downgrade() -> None:
    """Put back what was there before."""
    _replace("objects_0003", VERSION_BEFORE)


def _replace(objects: str, version: int) -> None:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    quoted = '"' + schema.replace('"', '""') + '"'
    text = (PLACE / objects / "fork.sql").read_text(encoding="utf-8").strip().rstrip(";")
    filled = text.replace("{schema}", quoted).replace("{wake_channel}", wake_channel(schema))
    op.execute(sa.text(filled.replace(":", "\\:")))
    op.execute(f"UPDATE {quoted}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")
