"""A workflow that is resumed before its worker has paused it goes on at once: `resume` tells that worker. And `pause`
after `cancel` lets the code hear of its cancellation first.

Revision: 0005. Two functions are replaced; no table changes. Code of version 4 goes on as before: a worker of it that
is about to pause a workflow does so, and takes it up again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 5, 2
VERSION_BEFORE = 4
PLACE = Path(__file__).resolve().parent.parent
NAMES = ("pause", "resume")


def mail_channel(schema: str) -> str:
    return "pgflow_mail_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def wake_channel(schema: str) -> str:
    return "pgflow_wake_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def upgrade() -> None:
    """Replace both functions."""
    for name in NAMES:
        _execute((PLACE / "objects_0005" / f"{name}.sql").read_text(encoding="utf-8"))
    _settle(VERSION)


def downgrade() -> None:
    """Put back what was there before."""
    text = (PLACE / "objects_0002" / "operate.sql").read_text(encoding="utf-8")
    for name in NAMES:
        begin = text.index(f"CREATE FUNCTION {{schema}}.{name}(")
        _execute(text[begin:].partition("--;")[0].replace("CREATE", "CREATE OR REPLACE", 1))
    _settle(VERSION_BEFORE)


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _execute(statement: str) -> None:
    schema = _schema()
    filled = statement.strip().rstrip(";").replace("{schema}", _quoted())
    filled = filled.replace("{wake_channel}", wake_channel(schema)).replace("{mail_channel}", mail_channel(schema))
    op.execute(sa.text(filled.replace(":", "\\:")))
