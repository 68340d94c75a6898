-- The queues that workers serve, and those that something can be claimed from: one look at the index for each.
WITH RECURSIVE found AS (
    (
        SELECT r.queue, 1 AS number FROM {schema}.runs AS r
        WHERE r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
        ORDER BY r.queue
        LIMIT 1
    )
    UNION ALL
    SELECT n.queue, f.number + 1
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT r.queue FROM {schema}.runs AS r
        WHERE r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL AND r.queue > f.queue
        ORDER BY r.queue
        LIMIT 1
    ) AS n
    WHERE f.number < 1000
)
SELECT q.queue
FROM (
    SELECT f.queue FROM found AS f
    UNION
    SELECT unnest(k.queues) FROM {schema}.workers AS k
) AS q
WHERE starts_with(q.queue, %(begin)s::text)
ORDER BY q.queue
LIMIT %(most)s::bigint
