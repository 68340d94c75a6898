CREATE OR REPLACE FUNCTION {schema}.pause(workflow_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    owner bigint;
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'pause');
    -- A cancellation that was asked for before is told to the code first.
    UPDATE {schema}.runs AS r SET
        pause_requested = r.status = 'running' OR (r.status <> 'paused' AND r.cancel_requested),
        status = CASE WHEN r.status = 'running' OR r.cancel_requested THEN r.status ELSE 'paused' END,
        last_worker = NULL
    WHERE r.workflow_id = workflow_id AND r.status IN ('pending', 'sleeping', 'running', 'paused')
    RETURNING coalesce(r.worker_id, 0) INTO owner;
    IF owner > 0 AND has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        PERFORM pg_notify('{mail_channel}', owner::text);
    END IF;
    RETURN owner IS NOT NULL;
END
$function$;
