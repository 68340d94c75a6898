"""Dead letters: signals whose bodies do not fit are set aside, to be looked at, delivered anew or dropped.

Revision: 0006. A signal that is set aside counts as dropped, so that code of before leaves it alone; `problem` tells
the two apart.

The index of dead letters has no entries yet, but to make it all signals are read: where they are many the upgrade makes
it afterwards, beside whoever works.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 6, 2
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0006"
FEW = 32 << 20
"""Bytes of a table that are read in a moment."""

DROPPED_AT = (
    "When the receiver had ended without taking it, when it was dropped by a person, or (see problem) set aside."
)
DROPPED_AT_BEFORE = "When the receiver had ended without taking it."


def mail_channel(schema: str) -> str:
    return "pgflow_mail_" + hashlib.md5(schema.encode(), usedforsecurity=False).hexdigest()[:16]


def upgrade() -> None:
    """Add the column, its index, and what people do with dead letters."""
    schema = _schema()
    quoted = _quoted(schema)
    op.add_column(
        "signals",
        sa.Column("problem", sa.Text(), comment="Why it was set aside: its body does not fit the type."),
        schema=schema,
    )
    _comment(schema, DROPPED_AT)
    signals = (quoted + ".signals").replace("'", "''")
    _execute(
        schema,
        f"DO $do$ BEGIN IF pg_relation_size('{signals}') < {FEW} THEN "
        "CREATE INDEX signals_dead ON {schema}.signals (id) WHERE problem IS NOT NULL; END IF; END $do$",
    )
    for statement in (OBJECTS / "dead_letters.sql").read_text(encoding="utf-8").split("--;"):
        _execute(schema, statement)
    op.execute(f"UPDATE {quoted}.schema_info SET version = {VERSION}, compatible_from = {COMPATIBLE_FROM}")


def downgrade() -> None:
    """Remove it again; what is set aside then counts as dropped."""
    schema = _schema()
    quoted = _quoted(schema)
    op.execute(f"DROP VIEW {quoted}.dead_signals")
    for function in ("redeliver(uuid, json)", "drop_signal(uuid)", "dead_signal(uuid, text)"):
        op.execute(f"DROP FUNCTION {quoted}.{function}")
    op.drop_column("signals", "problem", schema=schema)
    _comment(schema, DROPPED_AT_BEFORE)
    op.execute(f"UPDATE {quoted}.schema_info SET version = 5, compatible_from = 2")


def _comment(schema: str, dropped_at: str) -> None:
    op.alter_column(
        "signals", "dropped_at", existing_type=sa.DateTime(timezone=True), comment=dropped_at, schema=schema
    )


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
        .replace("{mail_channel}", mail_channel(schema))
    )
    op.execute(sa.text(filled.replace(":", "\\:")))
