-- The hint at signals that have just been sent, to the workers that have their receivers or had them last (0: any): right behind
-- them, in a transaction of its own that does not wait for the disk.
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
workers AS MATERIALIZED (
    SELECT DISTINCT coalesce(r.worker_id, r.last_worker, 0) AS id
    FROM unnest(%(ids)s::uuid[]) AS sent (id)
    CROSS JOIN LATERAL (SELECT s.workflow_id FROM {schema}.signals AS s WHERE s.id = sent.id LIMIT 1) AS signal
    CROSS JOIN LATERAL (SELECT * FROM {schema}.runs AS run WHERE run.workflow_id = signal.workflow_id LIMIT 1) AS r
)
SELECT pg_notify(%(channel)s::text, workers.id::text) FROM quick, workers
