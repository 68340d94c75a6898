CREATE FUNCTION {schema}.end_timed_out(workflow_id uuid, after double precision) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    parent uuid;
    waiters uuid[];
    heirs uuid[];
BEGIN
    -- The run is locked. What is kept of the workflow comes first, since runs gets from there what it failed with; then those who are told.
    UPDATE {schema}.workflows AS w SET
        status = 'failed', completed_at = now(),
        error = format('{"type":"WorkflowTimeout","message":"no worker has taken it within %s s","timeout":%s}', after, after)::json
    WHERE w.id = workflow_id
    RETURNING w.parent_id INTO parent;
    UPDATE {schema}.runs AS r SET
        status = 'failed', wake_at = NULL, pause_requested = false, deadline = NULL, timed_out = after,
        unique_key = NULL, freed_key = r.unique_key
    WHERE r.workflow_id = workflow_id
    RETURNING r.waiters INTO waiters;
    WITH told AS (
        INSERT INTO {schema}.requests (workflow_id, kind)
        SELECT parent, 'child' WHERE parent IS NOT NULL
        UNION
        SELECT waiter.id, 'child' FROM unnest(waiters) AS waiter (id)
        RETURNING requests.workflow_id
    )
    SELECT array_agg(told.workflow_id) INTO heirs FROM told;
    IF {schema}.may_hint() THEN
        PERFORM pg_notify('{done_channel}', workflow_id::text);
        PERFORM pg_notify('{mail_channel}', owners.owner::text)
        FROM (SELECT DISTINCT coalesce(r.worker_id, r.last_worker, 0) FROM {schema}.runs AS r WHERE r.workflow_id = ANY (heirs)) AS owners (owner);
    END IF;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.end_timed_out(uuid, double precision) IS
'Ends a workflow, whose row in runs the caller has locked and that no worker has ever had, as failed by its deadline: who waits for it is told.';
--;
CREATE FUNCTION {schema}.pass_deadlines(most int DEFAULT 100) RETURNS TABLE (id uuid, name text, after double precision, ended boolean, error text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_column
DECLARE
    ids uuid[];
    run record;
BEGIN
    -- What somebody else has locked is left for the next time: nobody waits here.
    SELECT array_agg(due.workflow_id) INTO ids FROM (
        SELECT r.workflow_id FROM {schema}.runs AS r
        WHERE r.deadline <= now() ORDER BY r.deadline LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due;
    -- By a statement of its own, whose snapshot is younger than the locks.
    FOR run IN
        SELECT r.workflow_id, w.name, r.status, r.epoch, r.queue, r.worker_id, coalesce(w.timeout, 0) AS after, (
            r.cancel_requested OR cardinality(w.cancellations) > 0
            OR EXISTS (SELECT FROM {schema}.requests AS q WHERE q.workflow_id = r.workflow_id AND q.kind = 'cancel')
        ) AS cancelled
        FROM {schema}.runs AS r
        LEFT JOIN {schema}.workflows AS w ON w.id = r.workflow_id
        WHERE r.workflow_id = ANY (ids)
        ORDER BY r.workflow_id
    LOOP
        ended := run.epoch = 0 AND run.status IN ('pending', 'paused');
        IF ended AND run.cancelled THEN
            PERFORM {schema}.end_cancelled(run.workflow_id, NULL);
        ELSIF ended THEN
            PERFORM {schema}.end_timed_out(run.workflow_id, run.after);
        ELSIF run.status = 'failed' OR run.cancelled THEN
            -- A retry sets another deadline; what is cancelled is perhaps compensating, and keeps the time that it needs.
            UPDATE {schema}.runs AS r SET deadline = NULL WHERE r.workflow_id = run.workflow_id;
            CONTINUE;
        ELSE
            -- As a request to cancel that is delivered (mail_deliver.sql): it wakes who sleeps, and resumes who is paused.
            UPDATE {schema}.runs AS r SET
                deadline = NULL, timed_out = run.after, cancel_requested = true, pause_requested = false,
                status = CASE WHEN r.status IN ('sleeping', 'paused') THEN 'pending' ELSE r.status END,
                wake_at = CASE WHEN r.status <> 'running' THEN now() END
            WHERE r.workflow_id = run.workflow_id;
            IF {schema}.may_hint() THEN
                IF run.status = 'running' THEN
                    PERFORM pg_notify('{mail_channel}', run.worker_id::text);
                ELSE
                    PERFORM pg_notify('{wake_channel}', run.queue);
                END IF;
            END IF;
        END IF;
        id := run.workflow_id;
        name := run.name;
        after := run.after;
        error := CASE WHEN ended AND NOT run.cancelled THEN (
            SELECT w.error::text FROM {schema}.workflows AS w WHERE w.id = run.workflow_id) END;
        RETURN NEXT;
    END LOOP;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.pass_deadlines(int) IS
'Cancels the workflows whose deadline has passed, and ends those of them that no worker has ever had (ended): failed, or cancelled if that was asked for '
'before. A row for each; error is what it failed with. Workers call it in time, and whoever may operate may call it.';
