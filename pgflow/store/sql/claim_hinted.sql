-- The claim after a hint: takes the runs that it named, by id and without a look at the levels, if they are new, due and not held by
-- another worker. At their first epoch they have had no owner, so all but their mailboxes comes with the claim, however old its snapshot is.
-- The worker's own row is locked against removal, as in claim.sql.
WITH alive AS MATERIALIZED (
    SELECT w.id FROM {schema}.workers AS w
    WHERE w.id = %(worker)s::bigint AND w.expires_at > now()
    FOR KEY SHARE SKIP LOCKED
),
picked AS MATERIALIZED (
    SELECT due.workflow_id
    FROM unnest(%(ids)s::uuid[]) AS hinted (id)
    CROSS JOIN LATERAL (
        SELECT r.workflow_id
        FROM {schema}.runs AS r
        WHERE r.workflow_id = hinted.id AND r.epoch = 0 AND r.status = 'pending' AND r.wake_at <= now()
          AND r.queue = ANY (%(queues)s::text[]) AND r.name = ANY (%(names)s::text[])
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due
    WHERE EXISTS (SELECT FROM alive)
),
taken AS (
    UPDATE {schema}.runs AS r SET
        status = 'running', worker_id = %(worker)s::bigint, claim = %(claim)s::bigint, epoch = 1, wake_at = NULL
    WHERE r.workflow_id = ANY (ARRAY(SELECT picked.workflow_id FROM picked))
    RETURNING r.workflow_id, r.name, r.queue, r.epoch, r.mailbox, r.cancel_requested
)
SELECT
    now(), taken.workflow_id, taken.name, taken.queue, taken.epoch, taken.mailbox, taken.cancel_requested,
    w.input::text, nullif(w.tags, '{}'), w.created_at, w.parent_id, coalesce(w.seed, w.id)
FROM taken
CROSS JOIN LATERAL (SELECT * FROM {schema}.workflows AS w WHERE w.id = taken.workflow_id LIMIT 1) AS w
