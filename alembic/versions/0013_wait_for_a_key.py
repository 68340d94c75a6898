"""`dispatch` says what it has waited for when a unique key is held by a transaction that does not end in the caller's
time.

Revision: 0013. One function is rewritten as it is found, so that it keeps whatever else has become of it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 13, 2
VERSION_BEFORE = 12

BEFORE = """
            INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key)
            VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key)
            ON CONFLICT DO NOTHING;
            CONTINUE WHEN NOT FOUND;
"""
AFTER = """
            BEGIN
                INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key)
                VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key)
                ON CONFLICT DO NOTHING;
            EXCEPTION WHEN lock_not_available OR query_canceled THEN
                RAISE EXCEPTION 'dispatch: expected to learn in time whether a live workflow "%" has the tags %; most likely a transaction that is '
                    'still open starts or ends it', name, given_tags
                    USING ERRCODE = 'lock_not_available', HINT = 'Try again when it has ended; pg_stat_activity shows it.';
            END;
            CONTINUE WHEN NOT FOUND;
"""
REWRITE = """
DO $rewrite$
DECLARE
    found record;
BEGIN
    SELECT p.oid, p.prosrc INTO STRICT found FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = 'dispatch';
    IF strpos(found.prosrc, {old}) = 0 THEN
        RAISE EXCEPTION 'the function dispatch is not as it was expected: was it changed by hand?';
    END IF;
    EXECUTE replace(pg_get_functiondef(found.oid), {old}, {new});
END
$rewrite$
"""


def upgrade() -> None:
    """Catch what ends the wait."""
    _rewrite(BEFORE, AFTER)
    _settle(VERSION)


def downgrade() -> None:
    """Let it pass, as before."""
    _rewrite(AFTER, BEFORE)
    _settle(VERSION_BEFORE)


def _rewrite(old: str, new: str) -> None:
    old, new = (_literal(text.replace("{schema}", _quoted())) for text in (old, new))
    statement = REWRITE.replace("{literal}", _literal(_quoted())).replace("{old}", old).replace("{new}", new)
    op.execute(sa.text(statement.strip().replace(":", "\\:")))


def _settle(version: int) -> None:
    op.execute(f"UPDATE {_quoted()}.schema_info SET version = {version}, compatible_from = {COMPATIBLE_FROM}")


def _quoted() -> str:
    schema: str | None = op.get_context().version_table_schema
    assert schema is not None
    return '"' + schema.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
