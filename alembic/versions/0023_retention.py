"""How long workflows are kept once they have ended, by name: set by operators, or declared by code.

Revision: 0023. Without a row in `retention` nothing is removed, and nobody looks for anything.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 23, 2
VERSION_BEFORE = 22
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0023"

OPERATIONS = "What: cancel, pause, resume, retry, rewind, terminate, update, wake, fork, prune, redeliver or drop (a signal), retention."
OPERATIONS_BEFORE = (
    "What: cancel, pause, resume, retry, rewind, terminate, update, wake, fork, prune, redeliver or drop (a signal)."
)
SUBJECT = "On what, where that is no workflow: the id of a signal, the name that retention was set for."
SUBJECT_BEFORE = "On what, where that is no workflow: the id of a signal."

CHORES_BEFORE = (
    "signals: remove those that were taken or dropped some time ago; audit: remove rows that are old; ends: enter what "
    "ended before schema 0017, once (the row goes when that is done); finders: enter who found unique workflows before "
    "schema 0020, likewise."
)
CHORES = CHORES_BEFORE[:-1] + "; retention: remove workflows that were kept long enough."

GRANT = """
DO $grant$
DECLARE
    part regprocedure;
    given record;
BEGIN
    FOREACH part IN ARRAY ARRAY[{made}, {parts}]::regprocedure[] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', part);
    END LOOP;
    FOREACH part IN ARRAY ARRAY[{made}]::regprocedure[] LOOP
        FOR given IN
            SELECT a.grantee, a.is_grantable FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
            WHERE p.oid = {like}::regprocedure AND a.grantee <> p.proowner
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', part,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
                CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END LOOP;
END
$grant$
"""
SHARE = """
DO $share$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT a.privilege_type AS what, a.grantee, a.is_grantable
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = '{text}.chores'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE 'GRANT ' || given.what || ' ON {text}.retention TO '
            || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END
            || CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
END
$share$
"""
MADE = ("set_retention(text, text, text, boolean, text, text)", "reset_retention(text, text, text)")
PARTS = ("retention_seconds(text, text)",)


def upgrade() -> None:
    """Add the table, and the functions, for whom `cancel` is."""
    op.create_table(
        "retention",
        sa.Column(
            "name", sa.Text(), nullable=False, comment="The workflows' name; *: all that have nothing of their own."
        ),
        sa.Column("set_by", sa.Text(), nullable=False, comment="operator, or code: declared by workers that know it."),
        sa.Column(
            "keep",
            sa.Double(),
            comment="Seconds that one is kept after it has completed or was cancelled; infinity: for ever; null: not "
            "said here.",
        ),
        sa.Column("failed", sa.Double(), comment="Likewise after it has failed."),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
            comment="When this was said.",
        ),
        sa.PrimaryKeyConstraint("name", "set_by"),
        schema=_schema(),
        comment="How long workflows are kept once they have ended. What is not said by an operator for the name, or "
        "else by its code, is said by the operator for *; or they stay for ever.",
    )
    for statement in (OBJECTS / "retention.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    _execute(SHARE)
    made, parts = (", ".join(_literal(f"{_quoted()}.{f}") for f in functions) for functions in (MADE, PARTS))
    like = _literal(f"{_quoted()}.cancel(uuid, text, text)")
    _execute(GRANT.replace("{made}", made).replace("{parts}", parts).replace("{like}", like))
    _comments(OPERATIONS, SUBJECT, CHORES)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back."""
    _execute("DELETE FROM {schema}.chores WHERE name = 'retention'")
    for function in (*MADE, *PARTS, "retained_for(text, text)"):
        _execute(f"DROP FUNCTION {{schema}}.{function}")
    op.drop_table("retention", schema=_schema())
    _comments(OPERATIONS_BEFORE, SUBJECT_BEFORE, CHORES_BEFORE)
    _settle(VERSION_BEFORE)


def _comments(operations: str, subject: str, chores: str) -> None:
    op.alter_column("audit", "operation", existing_type=sa.Text(), comment=operations, schema=_schema())
    op.alter_column("audit", "subject", existing_type=sa.Text(), comment=subject, schema=_schema())
    op.alter_column("chores", "name", existing_type=sa.Text(), comment=chores, schema=_schema())


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _filled(text: str) -> str:
    channel = "pgflow_chore_" + hashlib.md5(_schema().encode(), usedforsecurity=False).hexdigest()[:16]
    text = text.replace("{chore_channel}", channel).replace("{schema}", _quoted())
    return text.replace("{text}", _quoted().replace("'", "''"))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
