-- What workflows send, those that this worker may act for.
, given AS MATERIALIZED (
    SELECT g.number, g.id, g.workflow_id, g.workflow_name, g.tags, g.name, g.body::json AS body, g.sender_id
    FROM unnest(
        %(ids)s::uuid[], %(workflow_ids)s::uuid[], %(workflow_names)s::text[], %(tags)s::jsonb[], %(names)s::text[],
        %(bodies)s::text[], %(sender_ids)s::uuid[], %(epochs)s::int[]
    ) WITH ORDINALITY AS g (id, workflow_id, workflow_name, tags, name, body, sender_id, epoch, number)
    JOIN fenced ON fenced.workflow_id = g.sender_id AND fenced.epoch = g.epoch
)
