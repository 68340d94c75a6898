-- How long the statements of this transaction wait for a lock.
SELECT set_config('lock_timeout', %(lock_timeout)s::text, true)
