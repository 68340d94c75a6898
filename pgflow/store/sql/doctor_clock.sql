-- The server's time; and workers whose last heartbeat, by the same clock, lies ahead.
SELECT extract(epoch FROM clock_timestamp())::float8, count(w.id)::int,
    coalesce(extract(epoch FROM max(w.heartbeat_at) - clock_timestamp()), 0)::float8, (array_agg(w.id ORDER BY w.id))[1:5]
FROM (SELECT) AS once
LEFT JOIN {schema}.workers AS w ON w.heartbeat_at > clock_timestamp() + make_interval(secs => %(off)s::float8)
