-- Enters into ends, from some pages, the workflows that had ended before that table was there, and extends the lease of the worker doing it.
-- No row comes back if that lease is lost. What ends meanwhile is entered by the trigger, wherever its row is then.
-- The rows are locked, so that none is entered that is to go on after all, or is removed.
WITH held AS (
    UPDATE {schema}.chores AS c SET place = %(until)s::bigint, held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = 'ends' AND c.holder = %(holder)s::uuid AND c.held_until > now()
    RETURNING c.place
),
old AS MATERIALIZED (
    SELECT w.id, w.name, w.status, w.created_at, coalesce(w.completed_at, w.created_at) AS ended_at
    FROM {schema}.workflows AS w
    WHERE w.ctid >= %(first)s::tid AND w.ctid < %(behind)s::tid AND w.status IN ('completed', 'cancelled') AND EXISTS (SELECT FROM held)
    FOR SHARE OF w
),
entered AS (
    INSERT INTO {schema}.ends (workflow_id, name, status, created_at, ended_at)
    SELECT old.id, old.name, old.status, old.created_at, old.ended_at FROM old
    ON CONFLICT DO NOTHING
    RETURNING workflow_id
)
SELECT held.place, (SELECT count(*)::int FROM entered) FROM held
