-- What workflows start, those for which this worker may act: their children, in the parent's queue and with its priority unless given otherwise.
, given AS MATERIALIZED (
    SELECT g.number, g.id, g.name, g.tags, g.input::json AS input, g.is_unique, g.run_at,
           coalesce(g.priority, fenced.priority) AS priority, coalesce(g.queue, fenced.queue) AS queue, g.detached, g.timeout,
           parent.id AS parent_id, coalesce(parent.root_id, parent.id) AS root_id, g.location AS parent_location,
           parent.created_at AS parent_since
    FROM unnest(
        %(ids)s::uuid[], %(names)s::text[], %(inputs)s::text[], %(tags)s::jsonb[], %(uniques)s::boolean[],
        %(run_ats)s::timestamptz[], %(priorities)s::int[], %(queues)s::text[], %(detached)s::boolean[], %(timeouts)s::float8[],
        %(sender_ids)s::uuid[], %(epochs)s::int[], %(locations)s::text[]
    ) WITH ORDINALITY AS g (
        id, name, input, tags, is_unique, run_at, priority, queue, detached, timeout, sender_id, epoch, location, number)
    JOIN fenced ON fenced.workflow_id = g.sender_id AND fenced.epoch = g.epoch
    JOIN {schema}.workflows AS parent ON parent.id = fenced.workflow_id
)
