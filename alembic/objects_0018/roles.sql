CREATE FUNCTION {schema}.dispatch_once(
    id uuid, name text, input json, tags jsonb, is_unique boolean, run_at timestamptz, priority int, queue text
) RETURNS TABLE (started_id uuid, started_name text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    SELECT w.id, w.name INTO started_id, started_name FROM {schema}.workflows AS w WHERE w.id = id AND w.name <> name;
    IF NOT FOUND THEN
        started_id := {schema}.dispatch(name, input, tags, id, is_unique, run_at, priority, queue);
        started_name := name;
    END IF;
    RETURN NEXT;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.dispatch_once(uuid, text, json, jsonb, boolean, timestamptz, integer, text) IS
'Starts a workflow as dispatch does, for clients that may not write tables: answers its id and name, or those of the workflow of another name that has the id, and '
'then starts nothing.';
--;
CREATE FUNCTION {schema}.signal_once(
    id uuid, workflow_id uuid, workflow_name text, tags jsonb, name text, body json
) RETURNS TABLE (receiver uuid, final text, worker bigint, other text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    earlier record;
BEGIN
    worker := 0;
    SELECT s.name, s.workflow_id INTO earlier FROM {schema}.signals AS s WHERE s.id = id;
    IF FOUND THEN
        receiver := earlier.workflow_id;
        IF earlier.name <> name OR earlier.workflow_id <> workflow_id THEN
            other := earlier.name;
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT w.id, w.status INTO receiver, final
    FROM {schema}.workflows AS w WHERE w.id = coalesce(workflow_id, {schema}.find_live(workflow_name, tags));
    IF receiver IS NOT NULL AND coalesce(final, 'failed') = 'failed' THEN
        PERFORM {schema}.send_signal(receiver, name, body, id);
    END IF;
    RETURN NEXT;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.signal_once(uuid, uuid, text, jsonb, text, json) IS
'Sends a signal under an id that its sender has made, for clients that may not write tables: sent twice is sent once. Answers who receives it (null: nobody), how the '
'receiver has ended if it has, and the other signal''s name if the id is that of another one.';
