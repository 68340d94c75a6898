-- Locks the rows of dead workers, skipping those that another worker is recovering. A worker that has come back meanwhile
-- (another heartbeat, another lock) is left alone. From here on the dead can claim nothing: a claim needs this row.
SELECT w.id
FROM {schema}.workers AS w
JOIN unnest(%(ids)s::bigint[], %(lock_keys)s::bigint[]) AS dead (id, lock_key) ON dead.id = w.id
WHERE w.expires_at < now() OR w.lock_key = dead.lock_key
ORDER BY w.id
FOR UPDATE OF w SKIP LOCKED
