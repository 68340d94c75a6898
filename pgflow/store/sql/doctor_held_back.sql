-- What has kept vacuum from removing dead rows of this database for longer than `open` seconds, or `behind` transactions: the oldest first. And
-- (kind null) how many sessions of others this role may not look at. On a standby: what may hold back the primary is not known there.
(
    SELECT 'session' AS kind, a.pid::text AS id, coalesce(nullif(a.application_name, ''), a.backend_type) AS who, a.usename::text AS by, a.state,
        extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
        greatest(age(a.backend_xmin), age(a.backend_xid)) AS transactions
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
      AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND NOT pg_is_in_recovery()
      AND a.xact_start < clock_timestamp() - make_interval(secs => %(open)s::float8)
    ORDER BY a.xact_start LIMIT 5
)
UNION ALL
(
    SELECT 'prepared', p.gid, NULL, p.owner::text, NULL, extract(epoch FROM clock_timestamp() - p.prepared)::float8, age(p.transaction)
    FROM pg_prepared_xacts AS p
    WHERE p.database = current_database() AND NOT pg_is_in_recovery()
      AND p.prepared < clock_timestamp() - make_interval(secs => %(open)s::float8)
    ORDER BY p.prepared LIMIT 5
)
UNION ALL
(
    SELECT 'slot', s.slot_name::text, s.slot_type, NULL, CASE WHEN s.active THEN 'active' ELSE 'inactive' END, NULL, age(s.xmin)
    FROM pg_replication_slots AS s
    WHERE NOT pg_is_in_recovery() AND age(s.xmin) > %(behind)s::int
    ORDER BY age(s.xmin) DESC LIMIT 5
)
UNION ALL
(
    SELECT 'standby', coalesce(nullif(s.application_name, ''), s.pid::text), host(s.client_addr), NULL, s.state, NULL, age(s.backend_xmin)
    FROM pg_stat_replication AS s
    WHERE NOT pg_is_in_recovery() AND age(s.backend_xmin) > %(behind)s::int
    ORDER BY age(s.backend_xmin) DESC LIMIT 5
)
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, NULL, count(*)::int
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.query = '<insufficient privilege>' AND NOT pg_is_in_recovery()
HAVING count(*) > 0
