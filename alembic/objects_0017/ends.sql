CREATE FUNCTION {schema}.record_ends() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
BEGIN
    -- A run also goes when a dispatch takes back what it has just inserted: then nothing has ended.
    INSERT INTO {schema}.ends (workflow_id, name, status, queue, priority, created_at, ended_at)
    SELECT g.workflow_id, g.name, w.status, g.queue, g.priority, w.created_at, coalesce(w.completed_at, w.created_at)
    FROM gone AS g
    CROSS JOIN LATERAL (
        SELECT o.status, o.created_at, o.completed_at FROM {schema}.workflows AS o WHERE o.id = g.workflow_id OFFSET 0
    ) AS w
    WHERE w.status IN ('completed', 'cancelled');
    RETURN NULL;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.record_ends() IS
'Trigger: writes a row into ends for each workflow whose run is gone because it has ended, whoever ended it.';
--;
CREATE TRIGGER runs_ended AFTER DELETE ON {schema}.runs
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {schema}.record_ends();
--;
CREATE FUNCTION {schema}.forget_ends() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
BEGIN
    DELETE FROM {schema}.ends AS e USING gone AS g
    WHERE e.ended_at = coalesce(g.completed_at, g.created_at) AND e.workflow_id = g.id;
    RETURN NULL;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.forget_ends() IS 'Trigger: removes the rows in ends of workflows that are removed.';
--;
CREATE TRIGGER workflows_removed AFTER DELETE ON {schema}.workflows
REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION {schema}.forget_ends();
--;
CREATE FUNCTION {schema}.forget_end(workflow_id uuid) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
    DELETE FROM {schema}.ends AS e USING {schema}.workflows AS w
    WHERE w.id = $1 AND e.ended_at = coalesce(w.completed_at, w.created_at) AND e.workflow_id = w.id
$function$;
--;
COMMENT ON FUNCTION {schema}.forget_end(uuid) IS
'Removes the row in ends of a workflow that is to go on though it had ended: to be called by whoever gives it a run again, in that transaction.';
--;
CREATE FUNCTION {schema}.error_type(error json) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $function$
BEGIN
    RETURN left(error->>'type', 200);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;  -- it holds what no text can
END
$function$;
--;
COMMENT ON FUNCTION {schema}.error_type(json) IS 'The type that an error names, at most 200 characters; null where it cannot be read.';
--;
CREATE FUNCTION {schema}.record_failure() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $function$
#variable_conflict use_variable
DECLARE
    workflow_id uuid := NEW.workflow_id;
    error json;
    at timestamptz;
BEGIN
    SELECT w.error, w.completed_at INTO error, at FROM {schema}.workflows AS w WHERE w.id = workflow_id;
    UPDATE {schema}.runs AS r SET error_type = {schema}.error_type(error), failed_at = coalesce(at, now())
    WHERE r.workflow_id = workflow_id;
    RETURN NULL;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.record_failure() IS 'Trigger: keeps with the run of a failed workflow when it failed and the type of its error.';
--;
CREATE TRIGGER runs_failed AFTER UPDATE OF status ON {schema}.runs
FOR EACH ROW WHEN (NEW.status = 'failed' AND OLD.status <> 'failed') EXECUTE FUNCTION {schema}.record_failure();
--;
CREATE OR REPLACE VIEW {schema}.workflow_overview AS
SELECT
    w.id, w.name, coalesce(w.status, r.status) AS status, coalesce(r.queue, e.queue) AS queue, coalesce(r.priority, e.priority) AS priority,
    w.tags, w.input, w.output, w.error,
    w.created_at, w.completed_at, r.wake_at, r.waiting_for, r.worker_id, k.host AS worker_host, k.pid AS worker_pid,
    k.expires_at AS lease_until, r.epoch, r.cancel_requested, w.parent_id, w.root_id,
    w.state, r.pause_requested, r.awaits_children, w.detached, w.forked_from, r.reset, r.fork_before, w.tags_given
FROM {schema}.workflows AS w
LEFT JOIN {schema}.runs AS r ON r.workflow_id = w.id
LEFT JOIN {schema}.ends AS e
    ON w.status IN ('completed', 'cancelled') AND e.ended_at = coalesce(w.completed_at, w.created_at) AND e.workflow_id = w.id
LEFT JOIN {schema}.workers AS k ON k.id = r.worker_id;
--;
COMMENT ON COLUMN {schema}.workflow_overview.queue IS
'The queue that workers serve, or served until it ended; null for one that ended before that was kept (schema 0017).';
--;
COMMENT ON COLUMN {schema}.workflow_overview.priority IS 'Higher goes first; null as queue is.';
