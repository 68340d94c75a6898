-- What a client starts, by column.
WITH given AS MATERIALIZED (
    SELECT g.number, g.id, g.name, g.tags, g.input::json AS input, g.is_unique, g.run_at, g.priority, g.queue, g.detached, g.timeout,
           NULL::uuid AS parent_id, NULL::uuid AS root_id, NULL::text AS parent_location, NULL::timestamptz AS parent_since
    FROM unnest(
        %(ids)s::uuid[], %(names)s::text[], %(inputs)s::text[], %(tags)s::jsonb[], %(uniques)s::boolean[],
        %(run_ats)s::timestamptz[], %(priorities)s::int[], %(queues)s::text[], %(detached)s::boolean[], %(timeouts)s::float8[]
    ) WITH ORDINALITY AS g (id, name, input, tags, is_unique, run_at, priority, queue, detached, timeout, number)
)
