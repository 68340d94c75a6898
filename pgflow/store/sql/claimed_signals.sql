-- The mailboxes of the runs that a claim took: what has been delivered and not consumed, under a snapshot younger than the
-- claim's locks. Runs to which nothing was ever delivered are skipped.
SELECT r.workflow_id::text, waiting.id, waiting.number, waiting.name, waiting.body::text
FROM {schema}.runs AS r
CROSS JOIN LATERAL (
    SELECT s.id, s.number, s.name, s.body
    FROM {schema}.signals AS s
    WHERE s.workflow_id = r.workflow_id AND s.number IS NOT NULL AND s.consumed_at IS NULL AND s.dropped_at IS NULL
    ORDER BY s.number
    LIMIT %(signals)s::int
) AS waiting
WHERE r.worker_id = %(worker)s::bigint AND r.claim = %(claim)s::bigint AND r.status = 'running' AND r.mailbox > 0
ORDER BY r.workflow_id, waiting.number
