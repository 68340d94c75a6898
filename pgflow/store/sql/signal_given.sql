-- What a client sends, by column.
WITH given AS MATERIALIZED (
    SELECT g.number, g.id, g.workflow_id, g.workflow_name, g.tags, g.name, g.body::json AS body, NULL::uuid AS sender_id
    FROM unnest(
        %(ids)s::uuid[], %(workflow_ids)s::uuid[], %(workflow_names)s::text[], %(tags)s::jsonb[], %(names)s::text[],
        %(bodies)s::text[]
    ) WITH ORDINALITY AS g (id, workflow_id, workflow_name, tags, name, body, number)
)
