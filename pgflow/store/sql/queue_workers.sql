-- The queues that living workers serve, and how many do.
SELECT served.queue, count(*)
FROM {schema}.workers AS w
CROSS JOIN LATERAL unnest(w.queues) AS served (queue)
WHERE w.expires_at > now()
GROUP BY served.queue
ORDER BY served.queue
LIMIT %(levels)s::int
