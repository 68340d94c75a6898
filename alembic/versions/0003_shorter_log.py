"""What a step writes to the server's log: less. Rows of history leave out what they say already, and pages have room
for updates.

Revision: 0003. Most steps have ended when they are first written: `completed_at` would repeat `created_at`, and is null
then. The view `history` shows it as before.

Workflows and runs are changed once more while they are young. Pages with room for that take the change beside the row:
an update of a workflow then touches none of its indexes. Pages that are filled already stay as they are.

No table is rewritten. Code of version 2 reads such rows as it reads others, and goes on writing the time.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 3, 2
PLACE = Path(__file__).resolve().parent.parent
HISTORY = ("events", "forgotten_events")
ROOM = {"workflows": 40, "runs": 45}
"""Fill factors: a row and its successor, which is a little longer, take less than twice that of a page."""
ROOM_BEFORE = {"workflows": 60, "runs": 60}

COMPLETED_AT = (
    "When the step ended; null while it is pending, and for one that had ended when its row was first written: "
    "then it is created_at. The view history shows it always."
)
COMPLETED_AT_BEFORE = "When the step ended; null while it is pending."


def wake_channel(schema: str) -> str:
    return "pgflow_wake_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def upgrade() -> None:
    """Say when the time is absent, show it all the same, and leave more room."""
    schema = _schema()
    _comment(schema, COMPLETED_AT)
    for name in ("history", "fork"):
        _execute(schema, (PLACE / "objects_0003" / f"{name}.sql").read_text(encoding="utf-8"))
    _settle(schema, ROOM, VERSION, COMPATIBLE_FROM)


def downgrade() -> None:
    """Fill the time in again, which changes most rows of history once."""
    schema = _schema()
    _comment(schema, COMPLETED_AT_BEFORE)
    for table in HISTORY:
        op.execute(
            f"UPDATE {_quoted(schema)}.{table} SET completed_at = created_at WHERE completed_at IS NULL AND status <> "
            "'pending'"
        )
    for folder, file, begin in (
        ("objects_0001", "views.sql", "CREATE VIEW {schema}.history"),
        ("objects_0002", "operate.sql", "CREATE FUNCTION {schema}.fork"),
    ):
        text = (PLACE / folder / file).read_text(encoding="utf-8")
        text = text[text.index(begin) :].partition("--;")[0]
        _execute(schema, text.replace("CREATE", "CREATE OR REPLACE", 1))
    _settle(schema, ROOM_BEFORE, 2, 2)


def _comment(schema: str, completed_at: str) -> None:
    for table in HISTORY:
        op.alter_column(
            table, "completed_at", existing_type=sa.DateTime(timezone=True), comment=completed_at, schema=schema
        )


def _settle(schema: str, room: dict[str, int], version: int, compatible_from: int) -> None:
    quoted = _quoted(schema)
    for table, percent in room.items():
        op.execute(f"ALTER TABLE {quoted}.{table} SET (fillfactor = {percent})")
    op.execute(f"UPDATE {quoted}.schema_info SET version = {version}, compatible_from = {compatible_from}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted(schema: str) -> str:
    return '"' + schema.replace('"', '""') + '"'


def _execute(schema: str, statement: str) -> None:
    filled = (
        statement.strip()
        .rstrip(";")
        .replace("{schema}", _quoted(schema))
        .replace("{wake_channel}", wake_channel(schema))
    )
    op.execute(sa.text(filled.replace(":", "\\:")))
