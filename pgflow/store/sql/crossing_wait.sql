-- Workflows that found another workflow in the place of a unique child ask to be notified of its end, and that it be kept for as long as
-- they may await it. Answers which of those others are locked by another transaction, or have been removed since: try again. One that
-- has ended is not notified of; the workflow that waits will ask how.
WITH given AS MATERIALIZED (
    SELECT given.workflow_id, given.waiter, given.location
    FROM unnest(%(workflow_ids)s::uuid[], %(waiters)s::uuid[], %(locations)s::text[]) AS given (workflow_id, waiter, location)
),
wanted AS MATERIALIZED (
    SELECT given.workflow_id, array_agg(DISTINCT given.waiter) AS waiters FROM given GROUP BY given.workflow_id
),
locked AS MATERIALIZED (
    SELECT r.workflow_id
    FROM {schema}.runs AS r
    JOIN wanted ON wanted.workflow_id = r.workflow_id
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
),
kept AS MATERIALIZED (
    SELECT w.id
    FROM {schema}.workflows AS w
    JOIN wanted ON wanted.workflow_id = w.id
    WHERE (SELECT count(*) FROM locked) >= 0  -- runs first
    ORDER BY w.id
    FOR KEY SHARE OF w SKIP LOCKED
),
entered AS (
    INSERT INTO {schema}.finders (workflow_id, finder_id, location)
    SELECT given.workflow_id, given.waiter, given.location
    FROM given
    JOIN kept ON kept.id = given.workflow_id
    ORDER BY given.workflow_id, given.waiter, given.location
    ON CONFLICT DO NOTHING
),
noted AS (
    UPDATE {schema}.runs AS r SET
        waiters = ARRAY(SELECT unnest(r.waiters) UNION SELECT unnest(wanted.waiters))
    FROM locked
    JOIN wanted ON wanted.workflow_id = locked.workflow_id
    WHERE r.workflow_id = locked.workflow_id AND NOT coalesce(r.waiters @> wanted.waiters, false)
)
SELECT r.workflow_id
FROM {schema}.runs AS r
JOIN wanted ON wanted.workflow_id = r.workflow_id
WHERE NOT EXISTS (SELECT FROM locked WHERE locked.workflow_id = r.workflow_id)
UNION
SELECT wanted.workflow_id FROM wanted WHERE NOT EXISTS (SELECT FROM kept WHERE kept.id = wanted.workflow_id)
