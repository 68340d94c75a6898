"""A workflow runs again under its own id from before a step: what comes after goes to forgotten history, under a number.

Revision: 0019. Ids that are made from a location get the number of the last rewind that undid it. Workers of before do not
know of that: behind the name of a rewound run, in `runs` alone, stands a control character, as in no name that they serve, so
that their claims pass it over. Rows of runs that have ended are gone; what a rewind needs of them, and cannot take for granted,
is kept in `ends`. The key of forgotten history gets a column more: where that table is large, the upgrade builds the index
afterwards, beside whoever works, and until then rewinds are refused.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 19, 2
VERSION_BEFORE = 18
OBJECTS = Path(__file__).resolve().parent.parent
FEW = 32 << 20
"""Bytes of a table that are read in a moment."""

OPERATIONS = "What: cancel, pause, resume, retry, rewind, terminate, update, fork, redeliver or drop (a signal)."
OPERATIONS_BEFORE = "What: cancel, pause, resume, retry, terminate, update, fork, redeliver or drop (a signal)."
NAME = "The workflow's name, as workers ask for it: that of a rewound one with the control character 31 behind it."
NAME_BEFORE = "The workflow's name, as workers ask for it."
FORGOTTEN = "Forgotten history: rows of finished loop turns, and of what a rewind has undone, kept for people to read."
FORGOTTEN_BEFORE = "Forgotten history: rows of finished loop turns, kept for people to read."

RETRY = {
    "HINT = format('Fork it: fork(%s, before=%s).', run.workflow_id, {schema}.display_location(run.fork_before));": (
        "HINT = format('Rewind it: rewind(%1$s, before=%2$s); or fork it: fork(%1$s, before=%2$s).', run.workflow_id, "
        "{schema}.display_location(run.fork_before));"
    )
}

MADE = (
    "turn_location(text, int)",
    "turn_of(text, text)",
    "copy_history(uuid, text, uuid, text)",
    "return_signals(uuid, int, timestamptz, bigint, text)",
    "undo_history(uuid, text, int)",
    "rewind(uuid, text, text, text, text, boolean, uuid)",
)
KEPT: tuple[tuple[str, Any, str], ...] = (
    ("unique_key", sa.LargeBinary(), "Digest of name and tags, if it was unique at its end."),
    ("waiters", postgresql.ARRAY(sa.UUID()), "Workflows that were told of its end though they are not its parent."),
    ("epoch", sa.Integer(), "Its last epoch, from 2^24 on; null: below."),
)
"""Columns of `ends`: what a rewind needs of a run that is gone."""

KEY = """
DO $key$ BEGIN
    IF pg_relation_size('{text}.forgotten_events') < {few} THEN
        ALTER TABLE {schema}.forgotten_events DROP CONSTRAINT forgotten_events_pkey, ADD PRIMARY KEY (workflow_id, location, rewind);
    END IF;
    IF pg_relation_size('{text}.runs') < {few} THEN
        CREATE INDEX runs_rewound ON {schema}.runs (queue, wake_at) WHERE right(name, 1) = chr(31);
    END IF;
END $key$
"""

GRANT = """
DO $grant$
DECLARE
    part regprocedure;
    given record;
BEGIN
    FOREACH part IN ARRAY ARRAY[{parts}]::regprocedure[] LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', part);
    END LOOP;
    FOR given IN
        SELECT a.grantee, a.is_grantable FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.oid = {like}::regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', {made}::regprocedure,
            CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
            CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$grant$
"""
"""What rewinds is for whom `cancel` is; its parts are nobody's."""

REWRITE = """
DO $rewrite$
DECLARE
    part jsonb;
    found regprocedure;
    written text;
BEGIN
    SELECT p.oid::regprocedure INTO STRICT found FROM pg_proc AS p WHERE p.pronamespace = {literal}::regnamespace AND p.proname = 'retry';
    written := pg_get_functiondef(found);
    FOR part IN SELECT c.value FROM jsonb_array_elements({parts}::jsonb) AS c (value) LOOP
        IF strpos(written, part->>0) = 0 THEN
            RAISE EXCEPTION 'the function % is not as it was expected: was it changed by hand?', found;
        END IF;
        written := replace(written, part->>0, part->>1);
    END LOOP;
    EXECUTE written;
END
$rewrite$
"""

RESTORE = """
DO $restore$
DECLARE
    given record;
    said record;
BEGIN
    CREATE TEMPORARY TABLE pgflow_before ON COMMIT DROP AS
    SELECT c.relname, a.privilege_type, a.grantee, a.is_grantable, NULL::text AS attname, NULL::text AS description
    FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
    WHERE c.oid = '{text}.history'::regclass AND a.grantee <> c.relowner
    UNION ALL
    SELECT c.relname, NULL, NULL, NULL, t.attname, d.description
    FROM pg_class AS c
    JOIN pg_description AS d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass
    LEFT JOIN pg_attribute AS t ON t.attrelid = c.oid AND t.attnum = d.objsubid AND d.objsubid > 0
    WHERE c.oid = '{text}.history'::regclass
      AND t.attname IS DISTINCT FROM 'rewind';
    DROP VIEW {schema}.history;
    {history};
    FOR said IN SELECT * FROM pgflow_before AS b WHERE b.description IS NOT NULL LOOP
        EXECUTE format(
            CASE WHEN said.attname IS NULL THEN 'COMMENT ON VIEW {text}.%1$I IS %3$L' ELSE 'COMMENT ON COLUMN {text}.%1$I.%2$I IS %3$L' END,
            said.relname, said.attname, said.description);
    END LOOP;
    FOR given IN SELECT * FROM pgflow_before AS b WHERE b.privilege_type IS NOT NULL LOOP
        EXECUTE 'GRANT ' || given.privilege_type || ' ON {text}.' || quote_ident(given.relname) || ' TO '
            || CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END
            || CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END;
    END LOOP;
    DROP TABLE pgflow_before;
END $restore$
"""


def upgrade() -> None:
    """Add the columns, the table, the functions and the triggers; replace the views, `fork`, and what `retry` advises."""
    schema = _schema()
    op.add_column(
        "workflows",
        sa.Column(
            "rewinds",
            postgresql.ARRAY(sa.Text()),
            comment="A text for each time that it was rewound: the location before which, then what was undone before that as well (=: "
            "a step with all below it; +: from one to another in a body, or to its end). Null: never.",
        ),
        schema=schema,
    )
    op.add_column(
        "forgotten_events",
        sa.Column(
            "rewind",
            sa.Integer(),
            nullable=False,
            server_default=sa.text("0"),
            comment="The rewind that undid the step, counted from 1; 0: none did.",
        ),
        schema=schema,
    )
    for name, kind, comment in KEPT:
        op.add_column("ends", sa.Column(name, kind, comment=comment), schema=schema)
    _execute(KEY)
    for file in (
        "history.sql",
        "copy_history.sql",
        "fork.sql",
        "ends.sql",
        "undo_history.sql",
        "return_signals.sql",
        "rewind.sql",
    ):
        for statement in (OBJECTS / "objects_0019" / file).read_text(encoding="utf-8").split("--;"):
            _execute(statement)
    _grant()
    _retry(list(RETRY.items()))
    _comments(OPERATIONS, NAME, FORGOTTEN)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back: what rewinds have undone is lost, and rewound workflows go on as if they had never been rewound."""
    schema = _schema()
    _retry([(new, old) for old, new in RETRY.items()])
    before = (OBJECTS / "objects_0017" / "ends.sql").read_text(encoding="utf-8").split("--;")[0]
    _execute(before.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"))
    for name, _, _ in KEPT:
        op.drop_column("ends", name, schema=schema)
    _fork_before()
    for function in reversed(MADE):
        _execute(f"DROP FUNCTION {{schema}}.{function}")
    before = (OBJECTS / "objects_0003" / "history.sql").read_text(encoding="utf-8").strip().rstrip(";")
    _execute(RESTORE.replace("{history}", before))
    _execute("DELETE FROM {schema}.forgotten_events WHERE rewind > 0")
    _execute("UPDATE {schema}.runs SET name = rtrim(name, chr(31)) WHERE right(name, 1) = chr(31)")
    _execute(
        "ALTER TABLE {schema}.forgotten_events DROP CONSTRAINT forgotten_events_pkey, ADD PRIMARY KEY (workflow_id, location)"
    )
    op.drop_index("runs_rewound", "runs", schema=schema, if_exists=True)
    op.drop_column("forgotten_events", "rewind", schema=schema)
    op.drop_column("workflows", "rewinds", schema=schema)
    _comments(OPERATIONS_BEFORE, NAME_BEFORE, FORGOTTEN_BEFORE)
    _settle(VERSION_BEFORE)


def _grant() -> None:
    names = [_literal(f"{_quoted()}.{function}") for function in MADE]
    like = _literal(f"{_quoted()}.cancel(uuid, text, text)")
    _execute(GRANT.replace("{parts}", ", ".join(names)).replace("{made}", names[-1]).replace("{like}", like))


def _fork_before() -> None:
    _execute((OBJECTS / "objects_0019" / "fork_before.txt").read_text(encoding="utf-8"))


def _retry(parts: list[tuple[str, str]]) -> None:
    given = json.dumps([[_filled(old), _filled(new)] for old, new in parts])
    _execute(REWRITE.replace("{literal}", _literal(_quoted())).replace("{parts}", f"$parts${given}$parts$"))


def _comments(operations: str, name: str, forgotten: str) -> None:
    schema = _schema()
    op.alter_column("audit", "operation", existing_type=sa.Text(), comment=operations, schema=schema)
    op.alter_column("runs", "name", existing_type=sa.Text(), comment=name, schema=schema)
    op.create_table_comment("forgotten_events", forgotten, schema=schema)


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
    """With the names in place: {schema} as it stands in statements, {text} as it stands within quotes."""
    return (
        text.replace("{few}", str(FEW))
        .replace("{text}", _quoted().replace("'", "''"))
        .replace("{schema}", _quoted())
        .replace("{wake_channel}", _channel("wake"))
        .replace("{mail_channel}", _channel("mail"))
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
