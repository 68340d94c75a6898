-- The head of every batch of crossings: which of the workflows that make them this worker may still act for, each locked
-- until the commit. Rows that somebody else has locked are skipped, never waited for; they come again with the next batch.
WITH asked AS MATERIALIZED (
    SELECT DISTINCT given.workflow_id, given.epoch
    FROM unnest(%(sender_ids)s::uuid[], %(epochs)s::int[]) AS given (workflow_id, epoch)
),
fenced AS MATERIALIZED (
    SELECT r.workflow_id, r.epoch, r.queue, r.priority
    FROM asked
    JOIN {schema}.runs AS r ON r.workflow_id = asked.workflow_id
    WHERE r.worker_id = %(worker)s::bigint AND r.epoch = asked.epoch
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
)
