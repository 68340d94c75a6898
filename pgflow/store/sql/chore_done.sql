-- Marks the chore as done, and due again after a while; or (place) as given up halfway, for another worker to go on with.
UPDATE {schema}.chores AS c SET
    held_until = NULL, place = %(place)s::bigint, next_at = now() + make_interval(secs => %(pause)s::float8)
WHERE c.name = %(chore)s::text AND c.holder = %(holder)s::uuid
