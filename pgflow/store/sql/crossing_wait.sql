-- Workflows that found another workflow in the place of a unique child ask to be notified of its end. Answers which of those
-- others are locked by another transaction: try again. One whose row is gone has ended; the workflow that waits will ask how.
WITH wanted AS MATERIALIZED (
    SELECT given.workflow_id, array_agg(DISTINCT given.waiter) AS waiters
    FROM unnest(%(workflow_ids)s::uuid[], %(waiters)s::uuid[]) AS given (workflow_id, waiter)
    GROUP BY given.workflow_id
),
locked AS MATERIALIZED (
    SELECT r.workflow_id
    FROM {schema}.runs AS r
    JOIN wanted ON wanted.workflow_id = r.workflow_id
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
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
