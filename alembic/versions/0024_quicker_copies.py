"""Forks and rewinds of long histories take as long as reading them: what is compared with all of a body is found once for it.

Revision: 0024. Two functions are replaced. With 10,000 rows a fork took minutes.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 24, 2
VERSION_BEFORE = 23
OBJECTS = Path(__file__).resolve().parent.parent
FUNCTIONS = ("copy_history", "undo_history")


def upgrade() -> None:
    """Replace them."""
    for function in FUNCTIONS:
        _execute((OBJECTS / "objects_0024" / f"{function}.sql").read_text(encoding="utf-8"))
    _settle(VERSION)


def downgrade() -> None:
    """Put back what was there before."""
    for function in FUNCTIONS:
        begun = f"CREATE FUNCTION {{schema}}.{function}("
        for statement in (OBJECTS / "objects_0019" / f"{function}.sql").read_text(encoding="utf-8").split("--;"):
            if statement.strip().startswith(begun):
                _execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1))
    _settle(VERSION_BEFORE)


def _execute(statement: str) -> None:
    filled = statement.strip().rstrip(";").replace("{schema}", _quoted())
    op.execute(sa.text(filled.replace(":", "\\:")))


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '"'
