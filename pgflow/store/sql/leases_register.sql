-- A process begins to work: from here on, and until the lease expires, others leave alone what it claims.
INSERT INTO {schema}.workers (host, pid, lock_key, version, queues, expires_at)
VALUES (
    %(host)s::text, %(pid)s::int, %(lock_key)s::bigint, %(version)s::text, %(queues)s::text[],
    now() + make_interval(secs => %(lease)s::double precision))
RETURNING id
