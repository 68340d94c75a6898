-- How many workflows the processes of dead workers hold, noted once for each death on all workers of those processes, which may be
-- found dead one after the other. A worker that lives after all clears the note with its next heartbeat.
WITH mates AS MATERIALIZED (
    SELECT w.id
    FROM {schema}.workers AS w
    WHERE w.held IS NULL
      AND (w.id = ANY(%(ids)s::bigint[])
           OR w.process IN (SELECT dead.process FROM {schema}.workers AS dead WHERE dead.id = ANY(%(ids)s::bigint[])))
    ORDER BY w.id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {schema}.workers AS w SET held = (
    SELECT count(*)
    FROM {schema}.workers AS mate
    JOIN {schema}.runs AS r ON r.worker_id = mate.id AND r.status = 'running'
    WHERE mate.id = w.id OR mate.process = w.process)
FROM mates
WHERE w.id = mates.id
