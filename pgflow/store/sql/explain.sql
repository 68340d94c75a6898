-- What there is to know of why a workflow is where it is: of its run, its worker, who serves its queue, its mailbox, its
-- children. No row: there is no such workflow. Everything is bounded: a mailbox or a family may have a million.
SELECT
    now(), coalesce(w.status, r.status), w.name, r.queue, r.wake_at, r.epoch, r.pause_requested, r.cancel_requested,
    {schema}.display_location(r.fork_before), coalesce(cardinality(r.suspicions), 0), r.deadline, r.timed_out,
    r.worker_id, k.host, k.pid, k.heartbeat_at, k.expires_at,
    CASE WHEN r.status = 'running' THEN (
        SELECT concat_ws(' ', e.kind, e.name, 'at', {schema}.display_location(e.location))
        FROM {schema}.events AS e WHERE e.workflow_id = w.id ORDER BY e.location DESC LIMIT 1
    ) END,
    CASE WHEN r.status IN ('pending', 'sleeping') THEN (
        SELECT count(*) FROM {schema}.workers AS s WHERE s.expires_at > now() AND s.queues @> ARRAY[r.queue]
    ) END,
    -- Workers of before schema 0026 do not say what they know.
    CASE WHEN r.status IN ('pending', 'sleeping') THEN (
        SELECT count(*) FROM {schema}.workers AS s
        WHERE s.expires_at > now() AND s.queues @> ARRAY[r.queue] AND (s.names IS NULL OR w.name = ANY (s.names))
    ) END,
    (
        SELECT jsonb_agg(jsonb_build_object('id', m.id, 'name', m.name, 'created_at', m.created_at) ORDER BY m.n)
        FROM (
            SELECT s.id, s.name, s.created_at, row_number() OVER (ORDER BY s.number) AS n
            FROM {schema}.signals AS s
            WHERE s.workflow_id = w.id AND s.number IS NOT NULL AND s.consumed_at IS NULL AND s.dropped_at IS NULL
            ORDER BY s.number
            LIMIT %(limit)s::bigint + 1
        ) AS m
    ),
    (
        SELECT count(*) FROM (
            SELECT FROM {schema}.dead_signals AS s
            WHERE s.workflow_id = w.id
            LIMIT %(limit)s::bigint + 1
        ) AS d
    ),
    (
        SELECT jsonb_agg(jsonb_build_object('id', c.id, 'name', c.name, 'status', c.status) ORDER BY c.created_at, c.id)
        FROM (
            SELECT f.id, f.name, f.created_at, q.status
            FROM (SELECT c.id, c.name, c.created_at FROM {schema}.workflows AS c WHERE c.parent_id = w.id LIMIT %(looked_at)s::bigint) AS f
            JOIN {schema}.runs AS q ON q.workflow_id = f.id
            LIMIT %(limit)s::bigint + 1
        ) AS c
    ),
    (
        SELECT jsonb_object_agg(a.id, coalesce(o.status, q.status))
        FROM unnest(%(awaited)s::uuid[]) AS a (id)
        JOIN {schema}.workflows AS o ON o.id = a.id
        LEFT JOIN {schema}.runs AS q ON q.workflow_id = a.id
    )
FROM {schema}.workflows AS w
LEFT JOIN {schema}.runs AS r ON r.workflow_id = w.id
LEFT JOIN {schema}.workers AS k ON k.id = r.worker_id
WHERE w.id = %(id)s::uuid
