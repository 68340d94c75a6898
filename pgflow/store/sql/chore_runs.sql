-- Enters into some runs, by their ids, when their workflows were dispatched and of what they failed, where that is not there yet, and extends the
-- lease of the worker doing it. No row comes back if that lease is lost; an id of null if there are no more.
WITH held AS (
    UPDATE {schema}.chores AS c SET held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = 'ends' AND c.holder = %(holder)s::uuid AND c.held_until > now()
    RETURNING c.name
),
page AS MATERIALIZED (
    SELECT r.workflow_id AS id FROM {schema}.runs AS r
    WHERE EXISTS (SELECT FROM held) AND (%(after)s::uuid IS NULL OR r.workflow_id > %(after)s::uuid)
    ORDER BY r.workflow_id LIMIT %(rows)s::int
),
undated AS MATERIALIZED (
    SELECT r.workflow_id AS id FROM {schema}.runs AS r
    WHERE r.workflow_id = ANY (ARRAY(SELECT page.id FROM page)) AND r.created_at IS NULL
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r
),
dated AS (
    -- What has been written since it was looked up is kept: it is the newer.
    UPDATE {schema}.runs AS r SET
        created_at = w.created_at,
        error_type = coalesce(r.error_type, CASE WHEN r.status = 'failed' THEN {schema}.error_type(w.error) END),
        failed_at = coalesce(r.failed_at, CASE WHEN r.status = 'failed' THEN w.completed_at END)
    FROM {schema}.workflows AS w
    WHERE r.workflow_id = ANY (ARRAY(SELECT undated.id FROM undated)) AND w.id = r.workflow_id
)
SELECT (SELECT page.id FROM page ORDER BY page.id DESC LIMIT 1) FROM held
