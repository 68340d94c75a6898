-- What keeps vacuum from removing dead rows of this database, the worst of each kind: for how many seconds, and for how many transactions
-- of the server. Of a standby there is no knowing what holds back the primary.
SELECT 'transaction', coalesce(extract(epoch FROM max(now() - a.xact_start)), 0)::float8,
    coalesce(max(greatest(age(a.backend_xmin), age(a.backend_xid))), 0)::float8
FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
  AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND NOT pg_is_in_recovery()
UNION ALL
SELECT 'prepared', coalesce(extract(epoch FROM max(now() - p.prepared)), 0)::float8, coalesce(max(age(p.transaction)), 0)::float8
FROM pg_prepared_xacts AS p
WHERE p.database = current_database() AND NOT pg_is_in_recovery()
UNION ALL
SELECT 'slot', NULL, coalesce(max(age(s.xmin)), 0)::float8
FROM pg_replication_slots AS s
WHERE NOT pg_is_in_recovery()
UNION ALL
SELECT 'standby', NULL, coalesce(max(age(s.backend_xmin)), 0)::float8
FROM pg_stat_replication AS s
WHERE NOT pg_is_in_recovery()
