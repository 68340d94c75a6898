-- Live workers that hold no advisory lock: through a pooler, or without the right to take one.
SELECT count(*)::int, (array_agg(w.id ORDER BY w.id))[1:5] FROM {schema}.workers AS w WHERE w.lock_key IS NULL AND w.expires_at > now()
