-- Locks one run that is still this worker's, waiting for the session that has it locked: then no other worker takes it until the commit.
SELECT r.epoch
FROM {schema}.runs AS r
WHERE r.workflow_id = %(workflow_id)s::uuid AND r.worker_id = %(worker)s::bigint AND r.epoch = %(epoch)s::int
FOR NO KEY UPDATE
