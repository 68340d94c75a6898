CREATE OR REPLACE FUNCTION {schema}.record_ends() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
BEGIN
    -- A run also goes when a dispatch takes back what it has just inserted: then nothing has ended. What a rewind needs is kept as well.
    INSERT INTO {schema}.ends (workflow_id, name, status, queue, priority, created_at, ended_at, unique_key, waiters, epoch)
    SELECT g.workflow_id, rtrim(g.name, chr(31)), w.status, g.queue, g.priority, w.created_at, coalesce(w.completed_at, w.created_at),
        g.unique_key, g.waiters, CASE WHEN g.epoch >= 16777216 THEN g.epoch END
    FROM gone AS g
    CROSS JOIN LATERAL (
        SELECT o.status, o.created_at, o.completed_at FROM {schema}.workflows AS o WHERE o.id = g.workflow_id OFFSET 0
    ) AS w
    WHERE w.status IN ('completed', 'cancelled');
    RETURN NULL;
END
$function$;
