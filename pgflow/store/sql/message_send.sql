-- Store messages; their numbers, in the order in which they were given.
INSERT INTO {schema}.messages (name, tags, body, workflow_id)
SELECT given.name, given.tags::jsonb, given.body::json, given.workflow_id
FROM unnest(%(names)s::text[], %(tags)s::text[], %(bodies)s::text[], %(workflow_ids)s::uuid[])
    WITH ORDINALITY AS given (name, tags, body, workflow_id, place)
ORDER BY given.place
RETURNING id
