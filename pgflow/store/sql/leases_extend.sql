-- A heartbeat, under whichever of its numbers the worker has at the moment. A lease that has expired is not extended: others may be about to
-- take over what the worker held. A heartbeat that was sent on a lost connection may arrive late: the lock of the session that has replaced
-- that one stays (`locks` are those that the worker had had when this was sent; 0: none).
UPDATE {schema}.workers SET
    heartbeat_at = now(),
    expires_at = now() + make_interval(secs => %(lease)s::double precision),
    lock_key = %(lock_key)s::bigint,
    held = NULL
WHERE id = ANY(%(numbers)s::bigint[]) AND expires_at > now() AND coalesce(lock_key, 0) = ANY(%(locks)s::bigint[])
RETURNING id
