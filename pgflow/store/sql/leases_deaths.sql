-- Notes the deaths of workers that say their build, and are about to be buried. What is noted is needed for a minute, and kept for a day.
WITH old AS (
    DELETE FROM {schema}.deaths AS d WHERE d.died_at < now() - interval '1 day'
)
INSERT INTO {schema}.deaths (worker_id, build, build_order)
SELECT w.id, w.build, w.build_order
FROM {schema}.workers AS w
WHERE w.id = ANY(%(ids)s::bigint[]) AND w.build IS NOT NULL
  AND NOT EXISTS (SELECT FROM {schema}.runs AS r WHERE r.worker_id = w.id AND r.status = 'running')
ON CONFLICT DO NOTHING
