-- Tables with many more dead rows than live ones, or that vacuum leaves alone; and (no table) a database that is near the end of its transaction
-- numbers. A standby has no statistics.
SELECT c.relname::text, s.n_live_tup, s.n_dead_tup, pg_total_relation_size(c.oid),
    extract(epoch FROM now() - greatest(s.last_autovacuum, s.last_vacuum))::float8,
    off.value OR current_setting('autovacuum') = 'off'
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_stat_all_tables AS s ON s.relid = c.oid
CROSS JOIN LATERAL (SELECT coalesce('autovacuum_enabled=false' = ANY (c.reloptions) OR 'autovacuum_enabled=off' = ANY (c.reloptions), false) AS value) AS off
WHERE n.nspname = %(schema)s::text AND c.relkind = 'r' AND NOT pg_is_in_recovery()
  AND (s.n_dead_tup > %(least)s::bigint AND s.n_dead_tup > %(times)s::float8 * s.n_live_tup OR off.value OR current_setting('autovacuum') = 'off')
UNION ALL
SELECT NULL, age(d.datfrozenxid), current_setting('autovacuum_freeze_max_age')::bigint, NULL, NULL, NULL
FROM pg_database AS d
WHERE d.datname = current_database() AND age(d.datfrozenxid) > %(frozen)s::bigint
ORDER BY 1
