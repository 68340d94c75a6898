-- The head of every batch: which of its runs this worker may still write for, each locked until the commit.
-- Rows locked by another transaction are skipped, never waited for; they are tried again with the next batch.
-- Each run is looked up by its id (LATERAL, and ANY (ARRAY ...) further down), whatever the planner believes: after a vacuum that
-- finds `runs` empty it takes the whole index for one page, and would read it through for every batch of what comes then.
WITH asked AS MATERIALIZED (
    SELECT given.run, given.workflow_id, given.epoch
    FROM unnest(%(workflow_ids)s::uuid[], %(epochs)s::int[]) WITH ORDINALITY AS given (workflow_id, epoch, run)
),
fenced AS MATERIALIZED (
    SELECT ordered.run, held.workflow_id, held.mailbox, held.waiters
    FROM (SELECT * FROM asked ORDER BY asked.workflow_id OFFSET 0) AS ordered
    CROSS JOIN LATERAL (
        SELECT r.workflow_id, r.mailbox, r.waiters
        FROM {schema}.runs AS r
        WHERE r.workflow_id = ordered.workflow_id AND r.worker_id = %(worker)s::bigint AND r.epoch = ordered.epoch
        FOR NO KEY UPDATE OF r SKIP LOCKED
    ) AS held
)
