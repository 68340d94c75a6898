"""A workflow with a long history is removed in pieces, and from the first one on is not there for anybody.

Revision: 0025. It keeps its row until the last piece, with the status `removing`, so that nobody uses its id anew while
rows of its history are left.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 25, 2
VERSION_BEFORE = 24
OBJECTS = Path(__file__).resolve().parent.parent

STATUS = "completed, failed or cancelled; null while it may go on (then see runs.status). removing: piece by piece."
STATUS_BEFORE = "completed, failed or cancelled; null while it may go on (then see runs.status)."
MUST_EXIST = """
CREATE OR REPLACE FUNCTION {schema}.must_exist(workflow_id uuid, what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = workflow_id) THEN
        RAISE EXCEPTION '%: there is no workflow %', what, coalesce(workflow_id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
END
$function$
"""


def upgrade() -> None:
    """Replace the functions."""
    for statement in (OBJECTS / "objects_0025" / "pieces.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    _status(STATUS)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back."""
    _status(STATUS_BEFORE)
    _execute(MUST_EXIST)
    for statement in (OBJECTS / "objects_0020" / "prune.sql").read_text(encoding="utf-8").split("--;"):
        if ".remove_workflows(" in statement or ".prune(" in statement:
            _execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    _settle(VERSION_BEFORE)


def _status(comment: str) -> None:
    op.alter_column("workflows", "status", existing_type=sa.Text(), comment=comment, schema=_schema())


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _execute(statement: str) -> None:
    text = statement.strip().rstrip(";").replace("{schema}", _quoted()).replace("{text}", _quoted().replace("'", "''"))
    op.execute(sa.text(text.replace(":", "\\:")))
