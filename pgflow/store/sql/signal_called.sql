-- Sends signals by the schema's function, which notifies as well, for roles that may not write the tables. The client has checked their size.
SELECT given.number::int - 1, sent.receiver, sent.final, sent.worker, sent.other
FROM (
    SELECT set_config('pgflow.payload_limit', '2147483647', true),
           CASE WHEN %(quiet)s::boolean THEN set_config('pgflow.hints', 'off', true) END
    OFFSET 0
) AS set
CROSS JOIN unnest(
    %(ids)s::uuid[], %(workflow_ids)s::uuid[], %(workflow_names)s::text[], %(tags)s::jsonb[], %(names)s::text[],
    %(bodies)s::text[]
) WITH ORDINALITY AS given (id, workflow_id, workflow_name, tags, name, body, number)
CROSS JOIN LATERAL {schema}.signal_once(
    given.id, given.workflow_id, given.workflow_name, given.tags, given.name, given.body::json
) AS sent
ORDER BY given.number
