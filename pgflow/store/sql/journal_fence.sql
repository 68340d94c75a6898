-- The head of every batch: which of its runs this worker may still write for, each locked until the commit.
-- Rows that somebody else has locked are skipped, never waited for; they come again with the next batch.
WITH asked AS MATERIALIZED (
    SELECT given.run, given.workflow_id, given.epoch
    FROM unnest(%(workflow_ids)s::uuid[], %(epochs)s::int[]) WITH ORDINALITY AS given (workflow_id, epoch, run)
),
fenced AS MATERIALIZED (
    SELECT asked.run, r.workflow_id, r.mailbox, r.waiters
    FROM asked
    JOIN {schema}.runs AS r ON r.workflow_id = asked.workflow_id
    WHERE r.worker_id = %(worker)s::bigint AND r.epoch = asked.epoch
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r SKIP LOCKED
)
