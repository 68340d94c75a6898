CREATE FUNCTION {schema}.update_workflow(
    workflow_id uuid, queue text DEFAULT NULL, priority int DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    reason text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    run record;
    new_queue text;
    new_priority int;
    new_wake_at timestamptz;
BEGIN
    IF queue IS NULL AND priority IS NULL AND run_at IS NULL THEN
        RAISE EXCEPTION 'update_workflow: nothing is given to be changed, expected a queue, a priority or run_at'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF queue = '' OR length(queue) > 200 OR queue ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'update_workflow: queue is %, expected the name of a queue (1 to 200 printable characters)', quote_literal(queue)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF run_at >= timestamptz '10000-01-01 00:00:00+00' AND run_at <> 'infinity' THEN
        RAISE EXCEPTION 'update_workflow: run_at is %, expected a moment before the year 10000, or infinity', run_at
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM {schema}.must_exist(workflow_id, 'update_workflow');
    -- A claim is either over, and seen here, or comes after this and finds what this has written.
    SELECT r.* INTO run FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    IF NOT FOUND OR run.status NOT IN ('pending', 'sleeping', 'paused') THEN
        RAISE EXCEPTION 'update_workflow: the workflow % is %, expected one that is pending, sleeping or paused', workflow_id,
            coalesce(run.status, (SELECT w.status FROM {schema}.workflows AS w WHERE w.id = workflow_id), 'ended')
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = CASE WHEN run.status = 'running' THEN 'Pause it first, and resume it afterwards.' ELSE '' END;
    END IF;
    IF run_at IS NOT NULL AND run.epoch <> 0 THEN
        RAISE EXCEPTION 'update_workflow: the workflow % has begun already, its run_at can no longer be changed', workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its queue and priority can.';
    END IF;
    new_queue := coalesce(queue, run.queue);
    new_priority := coalesce(priority, run.priority);
    -- Workers no longer look at what was due before the last that they took of a queue and priority: what comes there now is due now.
    new_wake_at := coalesce(run_at, run.wake_at);
    IF new_wake_at < now() THEN
        new_wake_at := now();
    END IF;
    IF (new_queue, new_priority) = (run.queue, run.priority) AND (run_at IS NULL OR run_at = run.wake_at) THEN
        RETURN false;
    END IF;
    UPDATE {schema}.runs AS r SET queue = new_queue, priority = new_priority, wake_at = new_wake_at WHERE r.workflow_id = workflow_id;
    IF run.status <> 'paused' AND new_wake_at <= now() AND {schema}.may_hint() THEN
        PERFORM pg_notify('{wake_channel}', new_queue);
    END IF;
    PERFORM {schema}.write_audit('update', workflow_id, NULL, reason, actor, jsonb_strip_nulls(jsonb_build_object(
        'queue', queue, 'priority', priority, 'run_at', run_at)));
    RETURN true;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.update_workflow(uuid, text, int, timestamptz, text, text) IS
'Changes the queue and the priority of a workflow that is pending, sleeping or paused, and the run_at of one that no worker has ever had; false when it has '
'all that already. An error when it runs or has ended. The reason and the actor go into the table audit.';
