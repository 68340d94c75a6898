-- A worker that was taken for dead has come back: its runs are no longer suspected because of that death, which counts against no build. Rows locked by another
-- transaction are skipped, and counted in the answer.
WITH alive AS (
    DELETE FROM {schema}.deaths AS d WHERE d.worker_id = ANY(%(workers)s::bigint[])
),
wronged AS MATERIALIZED (
    SELECT r.workflow_id
    FROM {schema}.runs AS r
    WHERE r.suspicions IS NOT NULL AND r.suspicions && %(workers)s::bigint[]
),
locked AS MATERIALIZED (
    SELECT r.workflow_id
    FROM {schema}.runs AS r
    WHERE r.workflow_id = ANY (ARRAY(SELECT wronged.workflow_id FROM wronged))
    ORDER BY r.workflow_id
    FOR NO KEY UPDATE SKIP LOCKED
),
cleared AS (
    UPDATE {schema}.runs AS r SET
        suspicions = nullif(ARRAY(SELECT id FROM unnest(r.suspicions) WITH ORDINALITY AS dead (id, n) WHERE id <> ALL (%(workers)s::bigint[]) ORDER BY n), '{}'),
        crashes = nullif(ARRAY(SELECT id FROM unnest(r.crashes) WITH ORDINALITY AS dead (id, n) WHERE id <> ALL (%(workers)s::bigint[]) ORDER BY n), '{}'),
        presumed = CASE WHEN r.presumed <> ALL (%(workers)s::bigint[]) THEN r.presumed END,
        wake_at = CASE WHEN r.status = 'pending' THEN now() ELSE r.wake_at END
    WHERE r.workflow_id = ANY (ARRAY(SELECT locked.workflow_id FROM locked))
)
SELECT (SELECT count(*) FROM wronged) - (SELECT count(*) FROM locked)
