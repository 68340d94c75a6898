-- A heartbeat, under whichever of its numbers the worker has at the moment. A lease that has expired is not extended: others may be about to take over what the worker held.
UPDATE {schema}.workers SET
    heartbeat_at = now(),
    expires_at = now() + make_interval(secs => %(lease)s::double precision),
    lock_key = %(lock_key)s::bigint,
    held = NULL
WHERE id = ANY(%(numbers)s::bigint[]) AND expires_at > now()
RETURNING id
