-- Hints on one channel, in a transaction of their own that does not wait for the disk.
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
SELECT pg_notify(%(channel)s::text, payload) FROM quick, unnest(%(payloads)s::text[]) AS payload
