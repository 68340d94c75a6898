-- Waits for the last transactions of a worker that signs off: what they have locked would be passed over when it is freed.
SELECT r.workflow_id
FROM {schema}.runs AS r
WHERE r.worker_id = ANY(%(ids)s::bigint[]) AND r.status = 'running'
ORDER BY r.workflow_id
FOR NO KEY UPDATE
