-- Store messages; their numbers, in the order in which they were given.
INSERT INTO {schema}.messages (name, tags, body, workflow_id, place)
SELECT given.name, given.tags::jsonb, given.body::json, given.workflow_id, given.place
FROM unnest(%(names)s::text[], %(tags)s::text[], %(bodies)s::text[], %(workflow_ids)s::uuid[], %(places)s::bigint[])
    WITH ORDINALITY AS given (name, tags, body, workflow_id, place, number)
ORDER BY given.number
RETURNING id
