"""Workflows have deadlines.

Revision: 0021. `workflows.timeout` is what was given at the dispatch, `runs.deadline` the moment, which a retry sets anew.
`pass_deadlines` cancels what is due, by one index that holds nothing but deadlines, and ends what nobody has ever claimed.
`dispatch` takes a timeout; `retry`, `rewind` and `fork` count it anew. They are rewritten as they are found.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

VERSION, COMPATIBLE_FROM = 21, 2
VERSION_BEFORE = 20
OBJECTS = Path(__file__).resolve().parent.parent / "objects_0021"

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
        EXECUTE format('COMMENT ON FUNCTION %s IS %L', made, found.comment);
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

DISPATCH = [
    (
        "queue text DEFAULT 'default'::text)",
        "queue text DEFAULT 'default'::text, timeout interval DEFAULT NULL::interval)",
    ),
    (
        """    IF is_unique THEN
        key :=""",
        """    IF timeout <= interval '0' OR timeout > interval '36600 days' THEN
        RAISE EXCEPTION 'dispatch: timeout is %, expected more than nothing and at most 36600 days', timeout
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF is_unique THEN
        key :=""",
    ),
    (
        """(workflow_id, name, queue, priority, status, wake_at, unique_key)
                VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key)""",
        """(workflow_id, name, queue, priority, status, wake_at, unique_key, deadline)
                VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key, now() + after)""",
    ),
    (
        "(id, name, tags, input) VALUES (given_id, name, given_tags, input)",
        """(id, name, tags, input, timeout)
        VALUES (given_id, name, given_tags, input, extract(epoch FROM after)::double precision)""",
    ),
    (
        """(workflow_id, name, queue, priority, status, wake_at)
            VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()));""",
        """(workflow_id, name, queue, priority, status, wake_at, deadline)
            VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), now() + after);""",
    ),
    (
        """            PERFORM pg_notify('{wake_channel}', queue);
        END IF;
        RETURN given_id;""",
        """            PERFORM pg_notify('{wake_channel}', queue);
        END IF;
        PERFORM {schema}.hint_at_deadline(extract(epoch FROM after)::double precision);
        RETURN given_id;""",
    ),
    (
        "    key bytea;\n",
        """    after interval := make_interval(secs => extract(epoch FROM timeout)::double precision);  -- a month is 30 days
    key bytea;
""",
    ),
]

RETRY = [
    (
        "        -- The steps themselves, what a timeout",
        """        IF run.timed_out IS NOT NULL THEN
            -- The cancellation that the deadline brought is taken back with the steps that it cancelled, if these run again.
            UPDATE {schema}.workflows AS w SET cancellations = (
                SELECT array_agg(c ORDER BY c) FROM unnest(w.cancellations) AS c
                WHERE NOT EXISTS (
                    SELECT FROM {schema}.events AS e
                    WHERE e.workflow_id = run.workflow_id AND e.location = ANY (run.reset) AND e.status = 'cancelled' AND e.seq = c))
            WHERE w.id = run.workflow_id;
        END IF;
        -- The steps themselves, what a timeout""",
    ),
    (
        """            cancel_requested = false, pause_requested = false
        WHERE r.workflow_id = run.workflow_id;
""",
        """            cancel_requested = false, pause_requested = false,
            -- What stays cancelled goes on with that, and has no deadline any more.
            timed_out = (SELECT r.timed_out FROM {schema}.workflows AS w WHERE w.id = r.workflow_id AND cardinality(w.cancellations) > 0),
            deadline = (
                SELECT now() + make_interval(secs => w.timeout) FROM {schema}.workflows AS w
                WHERE w.id = r.workflow_id AND coalesce(cardinality(w.cancellations), 0) = 0)
        WHERE r.workflow_id = run.workflow_id;
        PERFORM {schema}.hint_at_deadline(w.timeout) FROM {schema}.workflows AS w WHERE w.id = run.workflow_id;
""",
    ),
]

FORK = [
    (
        "seed, state, forked_from, created_at, cancellations)",
        "seed, state, forked_from, created_at, timeout, cancellations)",
    ),
    ("w.state, w.id, w.created_at,\n", "w.state, w.id, w.created_at, w.timeout,\n"),
    (
        """(workflow_id, name, queue, status, wake_at, epoch, created_at)
    SELECT new_id, w.name, new_queue, 'pending', now(), 1, w.created_at FROM {schema}.workflows AS w WHERE w.id = new_id;
""",
        """(workflow_id, name, queue, status, wake_at, epoch, created_at, deadline, timed_out)
    SELECT new_id, w.name, new_queue, 'pending', now(), 1, w.created_at,
        -- What was cancelled before the place goes on with that, and has no deadline any more.
        CASE WHEN w.cancellations IS NULL THEN now() + make_interval(secs => w.timeout) END,
        CASE WHEN w.cancellations IS NOT NULL THEN (SELECT r.timed_out FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id) END
    FROM {schema}.workflows AS w WHERE w.id = new_id;
    PERFORM {schema}.hint_at_deadline(w.timeout) FROM {schema}.workflows AS w WHERE w.id = new_id;
""",
    ),
]

HINT = """
CREATE FUNCTION {schema}.hint_at_deadline(after double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    -- Deadlines that are further away than this are found by the looks that workers have between two hints.
    IF after <= 600 AND {schema}.may_hint() THEN
        PERFORM pg_notify('{mail_channel}', '+' || after);
    END IF;
END
$function$
"""
HINT_COMMENT = """
COMMENT ON FUNCTION {schema}.hint_at_deadline(double precision) IS
'Tells workers that a deadline has been set, so many seconds from now, where hints can be sent.'
"""

ONCE = [
    (
        "priority integer, queue text)",
        "priority integer, queue text, timeout double precision DEFAULT NULL::double precision)",
    ),
    ("is_unique, run_at, priority, queue);", "is_unique, run_at, priority, queue, make_interval(secs => timeout));"),
]

OPERATORS = """
DO $grant$
DECLARE
    given record;
BEGIN
    REVOKE ALL ON FUNCTION {schema}.hint_at_deadline(double precision), {schema}.end_timed_out(uuid, double precision),
        {schema}.pass_deadlines(int) FROM PUBLIC;
    FOR given IN
        SELECT a.grantee, a.is_grantable FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
        WHERE p.oid = {cancel}::regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s%s', {passing}::regprocedure,
            CASE given.grantee WHEN 0 THEN 'PUBLIC' ELSE given.grantee::regrole::text END,
            CASE WHEN given.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
END
$grant$
"""
"""Who may cancel may let deadlines pass; the parts are nobody's."""

REWIND = [
    (
        "        SELECT array_agg(DISTINCT c.id ORDER BY c.id) INTO live\n",
        """        -- Its deadline counts anew, unless it goes on with a cancellation from before the place.
        UPDATE {schema}.runs AS r SET
            timed_out = CASE WHEN cardinality(w.cancellations) > 0 OR r.cancel_requested THEN r.timed_out END,
            deadline = CASE WHEN cardinality(w.cancellations) > 0 OR r.cancel_requested THEN NULL ELSE now() + make_interval(secs => w.timeout) END
        FROM {schema}.workflows AS w
        WHERE r.workflow_id = workflow_id AND w.id = workflow_id AND (w.timeout IS NOT NULL OR r.timed_out IS NOT NULL);
        PERFORM {schema}.hint_at_deadline(flow.timeout);
        SELECT array_agg(DISTINCT c.id ORDER BY c.id) INTO live
""",
    ),
]

FUNCTIONS = [("dispatch", DISPATCH), ("dispatch_once", ONCE), ("retry", RETRY), ("fork", FORK), ("rewind", REWIND)]

MADE = (
    "hint_at_deadline(double precision)",
    "end_timed_out(uuid, double precision)",
    "pass_deadlines(int)",
)


def upgrade() -> None:
    """Add the columns, the index and the functions."""
    op.add_column(
        "workflows",
        sa.Column(
            "timeout",
            sa.Double(),
            comment="Seconds from dispatch, its last retry, rewind or fork until it is cancelled; null: it has no deadline.",
        ),
        schema=_schema(),
    )
    op.add_column(
        "runs",
        sa.Column(
            "deadline",
            sa.DateTime(timezone=True),
            comment="When it is cancelled, if it has not ended; null: never, or that has been done.",
        ),
        schema=_schema(),
    )
    op.add_column(
        "runs",
        sa.Column(
            "timed_out",
            sa.Double(),
            comment="Its deadline has passed, and it was cancelled for that: the seconds that it had. When the cancellation leaves it, it fails.",
        ),
        schema=_schema(),
    )
    op.create_index(
        "runs_deadline",
        "runs",
        ["deadline"],
        schema=_schema(),
        postgresql_where=sa.text("deadline IS NOT NULL"),
    )
    _execute(HINT)
    _execute(HINT_COMMENT)
    for statement in (OBJECTS / "deadlines.sql").read_text(encoding="utf-8").split("--;"):
        _execute(statement)
    passing, cancel = (_literal(f"{_quoted()}.{name}") for name in ("pass_deadlines(int)", "cancel(uuid, text, text)"))
    _execute(OPERATORS.replace("{passing}", passing).replace("{cancel}", cancel))
    _rewrite(FUNCTIONS)
    _settle(VERSION)


def downgrade() -> None:
    """Take it back; what has a deadline goes on without."""
    _rewrite([(name, [(new, old) for old, new in parts]) for name, parts in FUNCTIONS])
    for function in reversed(MADE):
        _execute(f"DROP FUNCTION {{schema}}.{function}")
    op.drop_index("runs_deadline", "runs", schema=_schema())
    op.drop_column("runs", "timed_out", schema=_schema())
    op.drop_column("runs", "deadline", schema=_schema())
    op.drop_column("workflows", "timeout", schema=_schema())
    _settle(VERSION_BEFORE)


def _rewrite(functions: list[tuple[str, list[tuple[str, str]]]]) -> None:
    changes = [
        {"name": name, "parts": [[_filled(old), _filled(new)] for old, new in parts]} for name, parts in functions
    ]
    _execute(
        REWRITE.replace("{literal}", _literal(_quoted())).replace(
            "{changes}", f"$changes${json.dumps(changes)}$changes$"
        )
    )


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
    for kind in ("wake", "done", "mail"):
        text = text.replace(f"{{{kind}_channel}}", _channel(kind))
    return text.replace("{schema}", _quoted())


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(statement: str) -> None:
    op.execute(sa.text(_filled(statement.strip().rstrip(";")).replace(":", "\\:")))
