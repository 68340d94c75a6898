-- Takes due runs, the most urgent first, and gives each a new epoch: whoever held it before is fenced out from here on.
-- A level is a queue, a name and a priority. Its due runs are one range of the index, from `since` to now, so that
-- neither sleepers nor names that this worker does not know stand before them; below `since` there are only entries
-- that this worker has seen taken already, dead ones perhaps that vacuum cannot remove yet.
-- First how many each level gives, by priority and age, without a lock; then that many, past those that others hold.
-- What has just woken is left for a moment to the worker that may still have it in memory, if this one has a moment.
-- The worker's own row is locked against removal: whoever recovers its runs has either seen this claim or prevents it.
WITH alive AS MATERIALIZED (
    SELECT w.id FROM {schema}.workers AS w
    WHERE w.id = %(worker)s::bigint AND w.expires_at > now()
    FOR KEY SHARE SKIP LOCKED
),
levels AS (
    SELECT given.level, given.queue, given.name, given.priority, given.since
    FROM unnest(%(queues)s::text[], %(names)s::text[], %(priorities)s::int[], %(since)s::timestamptz[])
        WITH ORDINALITY AS given (queue, name, priority, since, level)
),
shares AS MATERIALIZED (
    SELECT due.level, count(*) AS share
    FROM (
        SELECT levels.level
        FROM levels
        CROSS JOIN LATERAL (
            SELECT r.wake_at
            FROM {schema}.runs AS r
            WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
              AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
              AND r.wake_at >= levels.since AND r.wake_at <= now()
            ORDER BY r.wake_at
            LIMIT %(limit)s::int
        ) AS first
        ORDER BY levels.priority DESC, first.wake_at
        LIMIT %(limit)s::int
    ) AS due
    GROUP BY due.level
),
picked AS MATERIALIZED (
    SELECT levels.level, next.workflow_id, next.wake_at
    FROM shares
    JOIN levels ON levels.level = shares.level
    CROSS JOIN LATERAL (
        SELECT r.workflow_id, r.wake_at
        FROM {schema}.runs AS r
        WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
          AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
          AND r.wake_at >= levels.since AND r.wake_at <= now()
          AND (r.last_worker IS NULL OR r.last_worker = %(worker)s::bigint OR r.wake_at <= now() - %(patience)s::interval)
        ORDER BY r.wake_at
        LIMIT shares.share
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS next
    WHERE EXISTS (SELECT FROM alive)
),
taken AS (
    UPDATE {schema}.runs AS r SET
        status = 'running', worker_id = %(worker)s::bigint, claim = %(claim)s::bigint, epoch = r.epoch + 1,
        wake_at = NULL, waiting_for = NULL, awaits_children = false
    WHERE r.workflow_id = ANY (ARRAY(SELECT picked.workflow_id FROM picked))
)
SELECT picked.level::int, max(picked.wake_at), count(*)::int FROM picked GROUP BY picked.level
UNION ALL
SELECT 0, NULL, coalesce(sum(shares.share), 0)::int FROM shares
