"""Workers say which build of the application they are, and which workflows they know.

Revision: 0026. The columns are null for workers of before, which count as older than any build. What died is noted in a
table of its own, with the rights that `workers` has, since its row in `workers` goes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 26, 2
VERSION_BEFORE = 25

LOOP_STATE = (
    "On a loop: the state with which turn `loop_progress` starts. On an activity with a total_timeout: since when that "
    "counts."
)
LOOP_STATE_BEFORE = "On a loop: the state with which turn `loop_progress` starts."

GRANTS = """
DO $grants$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT a.privilege_type AS what, a.grantee, a.is_grantable
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = '{text}.workers'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT ' || given.what || ' ON {text}.deaths TO '
            || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END
            || CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
END
$grants$
"""


def upgrade() -> None:
    """Add the columns and the table."""
    schema = _schema()
    for column in (
        sa.Column(
            "build", sa.Text(), comment="The version of the application; null: it says none, and is older than any."
        ),
        sa.Column("build_order", sa.Text(collation="C"), comment="The build as a text by which builds are compared."),
        sa.Column("names", postgresql.ARRAY(sa.Text()), comment="The workflows that it knows."),
        sa.Column("concurrency", sa.Integer(), comment="How many workflows it holds at once, at most."),
    ):
        op.add_column("workers", column, schema=schema)
    op.create_table(
        "deaths",
        sa.Column("worker_id", sa.BigInteger(), nullable=False, autoincrement=False, comment="The worker that died."),
        sa.Column("build", sa.Text(), nullable=False, comment="Its build."),
        sa.Column(
            "build_order",
            sa.Text(collation="C"),
            nullable=False,
            comment="The build as a text by which builds are compared.",
        ),
        sa.Column(
            "died_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When that was noticed.",
        ),
        sa.PrimaryKeyConstraint("worker_id"),
        schema=schema,
        comment="Workers that say their build and have died, of the last day. Builds whose workers die go before nobody.",
    )
    text = _quoted().replace("'", "''")
    op.execute(sa.text(GRANTS.replace("{text}", text).strip().replace(":", "\\:")))
    _loop_state(LOOP_STATE)
    _settle(VERSION)


def downgrade() -> None:
    """Remove them again."""
    schema = _schema()
    op.drop_table("deaths", schema=schema)
    for column in ("concurrency", "names", "build_order", "build"):
        op.drop_column("workers", column, schema=schema)
    _loop_state(LOOP_STATE_BEFORE)
    _settle(VERSION_BEFORE)


def _loop_state(comment: str) -> None:
    for table in ("events", "forgotten_events"):
        op.alter_column(table, "loop_state", existing_type=postgresql.JSON(), comment=comment, schema=_schema())


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'
