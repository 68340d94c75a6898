"""A workflow can be ended without a worker and without its code, and many workflows are operated at once.

Revision: 0015. `terminate` ends any live workflow. `cancel` ends one that no worker has ever claimed, in its own
transaction. `operate_many` does one of the operations to many workflows: one that refuses holds up no other.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 15, 2
VERSION_BEFORE = 14
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0015"

OPERATIONS = "What: cancel, pause, resume, retry, terminate, fork, redeliver or drop (a signal)."
OPERATIONS_BEFORE = "What: cancel, pause, resume, retry, fork, redeliver or drop (a signal)."

ENDED = """    IF final IS NOT NULL THEN
        RETURN false;
    END IF;
"""
NEVER_CLAIMED = """    -- No worker has ever had it, and a fork has the history of another, which may have to be compensated.
    PERFORM FROM {schema}.runs AS r
    WHERE r.workflow_id = workflow_id AND r.epoch = 0 AND r.status IN ('pending', 'paused')
      AND NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = workflow_id AND w.forked_from IS NOT NULL)
    FOR NO KEY UPDATE OF r SKIP LOCKED;
    IF FOUND THEN
        PERFORM {schema}.end_cancelled(workflow_id, NULL);
        PERFORM {schema}.write_audit('cancel', workflow_id, NULL, reason, actor);
        RETURN true;
    END IF;
"""

GRANT = """
DO $grant$
DECLARE
    made regprocedure;
    given record;
BEGIN
    FOREACH made IN ARRAY ARRAY[{made}]::regprocedure[] LOOP
        IF EXISTS (SELECT FROM pg_proc AS p WHERE p.oid = {like}::regprocedure AND p.proacl IS NOT NULL) THEN
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
        END IF;
        FOR given IN
            SELECT a.grantee, a.is_grantable FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
            WHERE p.oid = {like}::regprocedure AND a.grantee <> p.proowner
        LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', made,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
                CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END LOOP;
END
$grant$
"""

REWRITE = """
DO $rewrite$
DECLARE
    change jsonb;
    part jsonb;
    found record;
    written text;
    made regprocedure;
    given record;
BEGIN
    FOR change IN SELECT c.value FROM jsonb_array_elements({changes}::jsonb) WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
        SELECT p.oid, p.oid::regprocedure AS name, p.proacl, p.proowner, obj_description(p.oid, 'pg_proc') AS comment INTO STRICT found
        FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = change->>'name';
        written := pg_get_functiondef(found.oid);
        FOR part IN SELECT c.value FROM jsonb_array_elements(change->'parts') WITH ORDINALITY AS c (value, number) ORDER BY c.number LOOP
            IF strpos(written, part->>0) = 0 THEN
                RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', found.name;
            END IF;
            written := replace(written, part->>0, part->>1);
        END LOOP;
        EXECUTE 'DROP FUNCTION ' || found.name;
        EXECUTE written;
        SELECT p.oid::regprocedure INTO STRICT made
        FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = change->>'name';
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', made, replace(found.comment, change->>'said', '') || (change->>'says'));
        CONTINUE WHEN found.proacl IS NULL;
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', made);
        FOR given IN SELECT a.grantee, a.is_grantable FROM aclexplode(found.proacl) AS a WHERE a.grantee <> found.proowner LOOP
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', made,
                CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
                CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
        END LOOP;
    END LOOP;
END
$rewrite$
"""


MADE = ("end_cancelled(uuid, json)", "terminate(uuid, text, text)", "operate_many(text, uuid[], text, text, boolean)")


def upgrade() -> None:
    """Add the functions, for whom `cancel` is, and let that one end what nobody has ever claimed."""
    for statement in (OBJECTS / "terminate.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    made = ", ".join(_literal(f"{_quoted()}.{function}") for function in MADE)
    like = _literal(f"{_quoted()}.cancel(uuid, text, text)")
    _execute(GRANT.replace("{made}", made).replace("{like}", like))
    _rewrite([("cancel", [(ENDED, ENDED + NEVER_CLAIMED)])])
    _operations(OPERATIONS)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back."""
    _rewrite([("cancel", [(ENDED + NEVER_CLAIMED, ENDED)])])
    for function in reversed(MADE):
        _execute(f"DROP FUNCTION {{schema}}.{function}")
    _operations(OPERATIONS_BEFORE)
    _settle(VERSION_BEFORE)


def _rewrite(functions: list[tuple[str, list[tuple[str, str]]]]) -> None:
    changes = [
        {"name": name, "parts": [[_filled(old), _filled(new)] for old, new in parts], "said": "", "says": ""}
        for name, parts in functions
    ]
    _execute(
        REWRITE.replace("{literal}", _literal(_quoted())).replace(
            "{changes}", f"$changes${json.dumps(changes)}$changes$"
        )
    )


def _operations(comment: str) -> None:
    op.alter_column("audit", "operation", existing_type=sa.Text(), comment=comment, schema=_schema())


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _schema() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return schema


def _quoted() -> str:
    return '"' + _schema().replace('"', '""') + '"'


def _channel(kind: str) -> str:
    return f"pgflow_{kind}_" + hashlib.md5(_schema().encode(), usedforsecurity=False).hexdigest()[:16]


def _filled(text: str) -> str:
    return (
        text.replace("{schema}", _quoted())
        .replace("{done_channel}", _channel("done"))
        .replace("{mail_channel}", _channel("mail"))
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
