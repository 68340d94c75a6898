CREATE FUNCTION {schema}.wake(workflow_id uuid, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    run record;
    attempts int;
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'wake');
    SELECT r.status, r.queue INTO run FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    IF NOT FOUND OR run.status <> 'sleeping' THEN
        RETURN false;
    END IF;
    -- Nobody writes to its history while it sleeps. The moments of sleeps, deadlines and listens are the code's own and stay.
    UPDATE {schema}.events AS e SET wake_at = now()
    WHERE e.workflow_id = workflow_id AND e.kind = 'activity' AND e.status = 'pending' AND e.wake_at > now();
    GET DIAGNOSTICS attempts = ROW_COUNT;
    -- Not by the worker that may have it in memory as it was: its history is to be read again.
    UPDATE {schema}.runs AS r SET status = 'pending', wake_at = now(), waiting_for = NULL, awaits_children = false, last_worker = NULL
    WHERE r.workflow_id = workflow_id;
    IF {schema}.may_hint() THEN
        PERFORM pg_notify('{wake_channel}', run.queue);
    END IF;
    PERFORM {schema}.write_audit('wake', workflow_id, NULL, reason, actor, jsonb_build_object('attempts', attempts));
    RETURN true;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.wake(uuid, text, text) IS
'Lets a workflow that sleeps look again now: activities that wait for their next attempt are tried at once, and what was missed is found; its sleeps, deadlines and '
'listens go on as they were. False when it does not sleep. The reason and the actor go into the table audit.';
