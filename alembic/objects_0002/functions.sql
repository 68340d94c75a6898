CREATE FUNCTION {schema}.send_signal(workflow_id uuid, name text, body json) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    given_id uuid := {schema}.uuid7();
    payload_limit int := coalesce(nullif(current_setting('pgflow.payload_limit', true), '')::int, 1048576);
BEGIN
    IF coalesce(name, '') = '' OR length(name) > 200 OR name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'signal: name is %, expected the name of a signal (1 to 200 printable characters)',
            coalesce(quote_literal(name), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(json_typeof(body), 'null') <> 'object' THEN
        RAISE EXCEPTION 'signal: body is %, expected a JSON object of the signal''s fields', coalesce(json_typeof(body), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(body::text) > payload_limit THEN
        RAISE EXCEPTION 'signal: body is % bytes of JSON, expected at most %', octet_length(body::text), payload_limit
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Store large data elsewhere and pass a reference to it, or set pgflow.payload_limit.';
    END IF;
    PERFORM body::jsonb;  -- refuses what no text of a program can be: a NUL, half of a surrogate pair
    INSERT INTO {schema}.signals (id, workflow_id, name, body) VALUES (given_id, workflow_id, name, body);
    -- A hint to the worker that has it, or had it last, where hints can be sent.
    IF has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        PERFORM pg_notify('{mail_channel}', coalesce(r.worker_id, r.last_worker, 0)::text)
        FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id;
    END IF;
    RETURN given_id;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.send_signal(uuid, text, json) IS
'Inserts a signal to a workflow that is known to be there: what both signal functions do in the end.';
--;
CREATE FUNCTION {schema}.signal(workflow_id uuid, name text, body json DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    final text;
BEGIN
    SELECT w.status INTO final FROM {schema}.workflows AS w WHERE w.id = workflow_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'signal: there is no workflow %', coalesce(workflow_id::text, 'null')
            USING ERRCODE = 'no_data_found';
    END IF;
    IF final IN ('completed', 'cancelled') THEN
        RAISE EXCEPTION 'signal: the workflow % is %, nothing was sent', workflow_id, final USING ERRCODE = 'no_data_found';
    END IF;
    RETURN {schema}.send_signal(workflow_id, name, body);
END
$function$;
--;
COMMENT ON FUNCTION {schema}.signal(uuid, text, json) IS
'Sends a signal to a workflow in the caller''s transaction and returns the signal''s id; an error when the workflow is unknown, '
'completed or cancelled.';
--;
CREATE FUNCTION {schema}.signal(workflow_name text, tags jsonb, name text, body json DEFAULT '{}') RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    found_id uuid;
BEGIN
    IF coalesce(jsonb_typeof(tags), 'null') <> 'object' THEN
        RAISE EXCEPTION 'signal: tags are %, expected a flat JSON object', coalesce(tags::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    found_id := {schema}.find_live(workflow_name, tags);
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'signal: no live workflow "%" has the tags %', workflow_name, tags USING ERRCODE = 'no_data_found';
    END IF;
    RETURN {schema}.send_signal(found_id, name, body);
END
$function$;
--;
COMMENT ON FUNCTION {schema}.signal(text, jsonb, text, json) IS
'Sends a signal to the oldest live workflow of a name whose tags contain these (else to the oldest failed one) in the caller''s '
'transaction and returns the signal''s id; an error when there is none.';
--;
CREATE FUNCTION {schema}.cancel(workflow_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    final text;
BEGIN
    SELECT w.status INTO final FROM {schema}.workflows AS w WHERE w.id = workflow_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'cancel: there is no workflow %', coalesce(workflow_id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
    IF final IS NOT NULL THEN
        RETURN false;
    END IF;
    INSERT INTO {schema}.requests (workflow_id, kind) VALUES (workflow_id, 'cancel');
    IF has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        PERFORM pg_notify('{mail_channel}', coalesce(r.worker_id, r.last_worker, 0)::text)
        FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id;
    END IF;
    RETURN true;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.cancel(uuid) IS
'Asks in the caller''s transaction that a workflow be cancelled; false when it has ended already, an error when it is unknown.';
