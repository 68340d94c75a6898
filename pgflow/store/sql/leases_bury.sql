-- Removes workers that hold nothing any more.
DELETE FROM {schema}.workers AS w
WHERE w.id = ANY(%(ids)s::bigint[])
  AND NOT EXISTS (SELECT FROM {schema}.runs AS r WHERE r.worker_id = w.id AND r.status = 'running')
RETURNING w.id
