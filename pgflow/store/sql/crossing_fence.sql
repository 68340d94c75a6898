-- The head of every batch of crossings: which of the workflows that make them this worker may still act for, each locked
-- until the commit. Rows that somebody else has locked are skipped, never waited for; they come again with the next batch.
WITH asked AS MATERIALIZED (
    SELECT DISTINCT given.workflow_id, given.epoch
    FROM unnest(%(sender_ids)s::uuid[], %(epochs)s::int[]) AS given (workflow_id, epoch)
),
fenced AS MATERIALIZED (
    SELECT held.workflow_id, held.epoch, held.queue, held.priority
    FROM (SELECT * FROM asked ORDER BY asked.workflow_id OFFSET 0) AS ordered
    CROSS JOIN LATERAL (
        SELECT r.workflow_id, r.epoch, r.queue, r.priority
        FROM {schema}.runs AS r
        WHERE r.workflow_id = ordered.workflow_id AND r.worker_id = %(worker)s::bigint AND r.epoch = ordered.epoch
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ) AS held
)
