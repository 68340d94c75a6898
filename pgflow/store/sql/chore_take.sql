-- Takes a chore that is due and that no worker is doing; otherwise answers when to look again. One row: how far the chore has got
-- (null: not taken), the seconds until it is due (infinity: it is done for good), and the pages of a table.
WITH taken AS (
    UPDATE {schema}.chores AS c SET holder = %(holder)s::uuid, held_until = now() + make_interval(secs => %(lease)s::float8)
    WHERE c.name = (
        SELECT free.name FROM {schema}.chores AS free
        WHERE free.name = %(chore)s::text AND free.next_at <= now() AND (free.held_until IS NULL OR free.held_until <= now())
        FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING c.place
)
SELECT
    (SELECT taken.place FROM taken),
    coalesce((SELECT extract(epoch FROM greatest(c.next_at, c.held_until) - now())::float8 FROM {schema}.chores AS c WHERE c.name = %(chore)s::text), 'infinity'),
    pg_relation_size('{schema_text}.{table}'::regclass) / current_setting('block_size')::bigint
