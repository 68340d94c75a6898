-- Remove a bounded number of the oldest expired messages; other workers may be doing the same.
WITH oldest AS MATERIALIZED (
    SELECT id, sent_at FROM {schema}.messages ORDER BY id LIMIT %(limit)s
), gone AS (
    DELETE FROM {schema}.messages
    WHERE id = ANY (ARRAY(
        SELECT id
        FROM {schema}.messages
        WHERE id = ANY (ARRAY(SELECT id FROM oldest WHERE sent_at < now() - make_interval(secs => %(seconds)s)))
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
)
SELECT count(*) FROM gone
