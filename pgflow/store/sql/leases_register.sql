-- A process begins to work: from here on, and until the lease expires, others leave alone what it claims. Its number is
-- random: numbers in sequence would be given out again by a database that was restored.
INSERT INTO {schema}.workers (id, host, pid, lock_key, version, queues, process, build, build_order, names, concurrency, definitions, expires_at)
OVERRIDING SYSTEM VALUE
VALUES (
    %(number)s::bigint, %(host)s::text, %(pid)s::int, %(lock_key)s::bigint, %(version)s::text, %(queues)s::text[],
    %(process)s::uuid, %(build)s::text, %(build_order)s::text, %(names)s::text[], %(concurrency)s::int, %(definitions)s::json,
    now() + make_interval(secs => %(lease)s::double precision))
RETURNING id
