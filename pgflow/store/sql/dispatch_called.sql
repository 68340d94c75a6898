-- Starts workflows by the schema's function, for roles that may not write the tables. The client has checked the size of the inputs.
SELECT given.number::int - 1, started.started_id, started.started_name, true
FROM (
    SELECT set_config('pgflow.payload_limit', '2147483647', true),
           CASE WHEN %(quiet)s::boolean THEN set_config('pgflow.hints', 'off', true) END
    OFFSET 0
) AS set
CROSS JOIN unnest(
    %(ids)s::uuid[], %(names)s::text[], %(inputs)s::text[], %(tags)s::jsonb[], %(uniques)s::boolean[],
    %(run_ats)s::timestamptz[], %(priorities)s::int[], %(queues)s::text[], %(timeouts)s::float8[]
) WITH ORDINALITY AS given (id, name, input, tags, is_unique, run_at, priority, queue, timeout, number)
CROSS JOIN LATERAL {schema}.dispatch_once(
    given.id, given.name, given.input::json, given.tags, given.is_unique, given.run_at, given.priority, given.queue, given.timeout
) AS started
ORDER BY given.number
