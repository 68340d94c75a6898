-- The claim of due runs that are suspected of killing processes, which claim.sql skips: given numbers of those suspected
-- once, twice, and more often.
-- An index of their own finds them; it is empty as long as no worker dies.
-- What workers of a newer build serve too, the `late` pairs, is left to them for `wait` seconds.
-- The worker's own row is locked against removal, as in claim.sql.
WITH alive AS MATERIALIZED (
    SELECT w.id FROM {schema}.workers AS w
    WHERE w.id = %(worker)s::bigint AND w.expires_at > now()
    FOR KEY SHARE SKIP LOCKED
),
due AS MATERIALIZED (
    SELECT r.workflow_id, least(cardinality(r.suspicions), 3) AS times,
           row_number() OVER (PARTITION BY least(cardinality(r.suspicions), 3) ORDER BY r.priority DESC, random()) AS place
    FROM {schema}.runs AS r
    WHERE r.suspicions IS NOT NULL AND r.queue = ANY (%(queues)s::text[]) AND r.name = ANY (%(names)s::text[])
      AND r.status IN ('pending', 'sleeping') AND r.wake_at <= now()
      AND (r.wake_at <= now() - make_interval(secs => %(wait)s::float8)
           OR (r.queue, r.name) NOT IN (SELECT late.queue, late.name FROM unnest(%(late_queues)s::text[], %(late_names)s::text[]) AS late (queue, name)))
),
picked AS MATERIALIZED (
    SELECT free.workflow_id
    FROM due
    CROSS JOIN LATERAL (
        SELECT r.workflow_id
        FROM {schema}.runs AS r
        WHERE r.workflow_id = due.workflow_id AND r.status IN ('pending', 'sleeping') AND r.wake_at <= now()
          AND least(cardinality(r.suspicions), 3) = due.times
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS free
    WHERE due.place <= (%(places)s::int[])[due.times] AND EXISTS (SELECT FROM alive)
),
taken AS (
    UPDATE {schema}.runs AS r SET
        status = 'running', worker_id = %(worker)s::bigint, claim = %(claim)s::bigint,
        epoch = CASE WHEN r.epoch < 2147483647 THEN r.epoch + 1 ELSE 2 END,
        wake_at = NULL, waiting_for = NULL, awaits_children = false
    WHERE r.workflow_id = ANY (ARRAY(SELECT picked.workflow_id FROM picked))
    RETURNING r.workflow_id
)
SELECT now(), (SELECT count(*)::int FROM taken)
