-- How large the tables are, indexes and long values included, and the statistics' opinion of their rows.
SELECT c.relname, pg_total_relation_size(c.oid)::float8, coalesce(s.n_live_tup, 0)::float8, coalesce(s.n_dead_tup, 0)::float8,
    pg_is_in_recovery()
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_all_tables AS s ON s.relid = c.oid
WHERE n.nspname = %(schema)s::text AND c.relkind = 'r'
ORDER BY pg_total_relation_size(c.oid) DESC
LIMIT %(series)s::int
