-- The last statement before the commit, so that the journal goes on writing the turns that follow meanwhile: locks the
-- runs and fails with a division by zero, undoing everything, unless each is still this worker's at its epoch.
SELECT 1 / (CASE WHEN count(*) = cardinality(%(workflow_ids)s::uuid[]) THEN 1 ELSE 0 END)
FROM (
    SELECT r.workflow_id
    FROM unnest(%(workflow_ids)s::uuid[], %(epochs)s::int[]) AS given (workflow_id, epoch)
    JOIN {schema}.runs AS r ON r.workflow_id = given.workflow_id
    WHERE r.workflow_id = ANY (%(workflow_ids)s::uuid[]) AND r.worker_id = %(worker)s::bigint AND r.epoch = given.epoch
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE OF r
) AS held
