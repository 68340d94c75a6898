CREATE OR REPLACE FUNCTION {schema}.resume(workflow_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    resumed record;
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'resume');
    UPDATE {schema}.runs AS r SET
        pause_requested = false,
        status = CASE WHEN r.status = 'paused' THEN 'pending' ELSE r.status END,
        wake_at = CASE
            WHEN r.status = 'running' THEN r.wake_at
            WHEN r.epoch = 0 THEN greatest(r.wake_at, now())
            ELSE now() END,
        waiting_for = NULL,
        awaits_children = false
    WHERE r.workflow_id = workflow_id AND (r.status = 'paused' OR r.pause_requested)
    RETURNING r.queue, r.worker_id INTO resumed;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        -- Whoever runs it has perhaps not paused it yet, and goes on at once.
        IF resumed.worker_id IS NULL THEN
            PERFORM pg_notify('{wake_channel}', resumed.queue);
        ELSE
            PERFORM pg_notify('{mail_channel}', resumed.worker_id::text);
        END IF;
    END IF;
    RETURN true;
END
$function$;
