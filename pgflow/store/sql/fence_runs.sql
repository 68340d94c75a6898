-- The runs that are a worker's, locked: what it has sent before is over, or has not begun and will find them moved.
SELECT r.workflow_id, r.epoch
FROM {schema}.runs AS r
WHERE r.worker_id = ANY(%(numbers)s::bigint[]) AND r.status = 'running'
ORDER BY r.workflow_id
FOR NO KEY UPDATE
