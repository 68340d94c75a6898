-- Work that has been due for `due` seconds and that nobody has taken, by queue and name: how much, for how long, some ids, how many live workers serve
-- its queue, whether one of them knows the name (it says so, or runs one), and what runs in all.
-- Levels (a queue, a name and a priority) are found by one index probe each, as far as `levels` of them; of each the due runs are one range of the
-- index, of which so many are counted that all of them together come to `bound` at most.
WITH RECURSIVE levels AS (
    (
        SELECT 1 AS number, r.queue, r.name, r.priority
        FROM {schema}.runs AS r
        WHERE r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
        ORDER BY r.queue, r.name, r.priority DESC
        LIMIT 1
    )
    UNION ALL
    SELECT levels.number + 1, next.queue, next.name, next.priority
    FROM levels
    CROSS JOIN LATERAL (
        SELECT found.queue, found.name, found.priority
        FROM (
            (
                SELECT 1 AS step, r.queue, r.name, r.priority
                FROM {schema}.runs AS r
                WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority < levels.priority
                  AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
                ORDER BY r.priority DESC
                LIMIT 1
            )
            UNION ALL
            (
                SELECT 2, r.queue, r.name, r.priority
                FROM {schema}.runs AS r
                WHERE (r.queue, r.name) > (levels.queue, levels.name)
                  AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
                ORDER BY r.queue, r.name, r.priority DESC
                LIMIT 1
            )
        ) AS found
        ORDER BY found.step
        LIMIT 1
    ) AS next
    WHERE levels.number < %(levels)s::int
),
share AS (
    SELECT greatest(5, %(bound)s::int / count(*)) AS each FROM levels
),
late AS (
    SELECT levels.queue, levels.name, sum(due.runs)::bigint AS runs, min(due.oldest) AS oldest, min(due.ids) AS ids
    FROM levels
    CROSS JOIN LATERAL (
        SELECT count(*) AS runs, min(first.wake_at) AS oldest, (array_agg(first.workflow_id::text ORDER BY first.wake_at))[1:5] AS ids
        FROM (
            SELECT r.wake_at, r.workflow_id
            FROM {schema}.runs AS r
            WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
              AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
              AND r.wake_at <= now() - make_interval(secs => %(due)s::float8)
            ORDER BY r.wake_at
            LIMIT (SELECT share.each FROM share)
        ) AS first
    ) AS due
    WHERE due.runs > 0
    GROUP BY levels.queue, levels.name
),
running AS MATERIALIZED (
    SELECT r.name FROM {schema}.runs AS r WHERE r.status = 'running' LIMIT %(bound)s::int
)
SELECT late.queue, late.name, late.runs, extract(epoch FROM now() - late.oldest)::float8, late.ids,
    (SELECT count(*)::int FROM {schema}.workers AS w WHERE w.expires_at > now() AND late.queue = ANY (w.queues)),
    EXISTS (SELECT FROM running WHERE running.name = late.name)
        OR EXISTS (
            SELECT FROM {schema}.workers AS w
            WHERE w.expires_at > now() AND late.queue = ANY (w.queues) AND late.name = ANY (w.names)),
    (SELECT count(*)::int FROM running),
    (SELECT count(*)::int FROM {schema}.workers AS w WHERE w.expires_at > now())
FROM late
ORDER BY late.oldest
LIMIT 50
