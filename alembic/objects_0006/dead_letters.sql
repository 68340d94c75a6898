CREATE VIEW {schema}.dead_signals AS
SELECT s.id, s.workflow_id, w.name AS workflow_name, s.name, s.body, s.problem, s.created_at, s.dropped_at AS set_aside_at, s.sender_id
FROM {schema}.signals AS s
LEFT JOIN {schema}.workflows AS w ON w.id = s.workflow_id
WHERE s.problem IS NOT NULL;
--;
COMMENT ON VIEW {schema}.dead_signals IS
'Dead letters: signals that were set aside because their bodies did not fit the type that was listened for. redeliver() delivers one anew, '
'drop_signal() gives it up.';
--;
COMMENT ON COLUMN {schema}.dead_signals.id IS 'The signal''s id.';
--;
COMMENT ON COLUMN {schema}.dead_signals.workflow_id IS 'The workflow that it was sent to.';
--;
COMMENT ON COLUMN {schema}.dead_signals.workflow_name IS 'The registered name of that workflow''s code.';
--;
COMMENT ON COLUMN {schema}.dead_signals.name IS 'The signal''s type.';
--;
COMMENT ON COLUMN {schema}.dead_signals.body IS 'Its fields, as they were sent.';
--;
COMMENT ON COLUMN {schema}.dead_signals.problem IS 'Why they do not fit.';
--;
COMMENT ON COLUMN {schema}.dead_signals.created_at IS 'When it was sent.';
--;
COMMENT ON COLUMN {schema}.dead_signals.set_aside_at IS 'When it was set aside.';
--;
COMMENT ON COLUMN {schema}.dead_signals.sender_id IS 'The workflow that sent it, if one did.';
--;
CREATE FUNCTION {schema}.redeliver(signal_id uuid, body json DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    receiver uuid;
    final text;
    payload_limit int := coalesce(nullif(current_setting('pgflow.payload_limit', true), '')::int, 1048576);
BEGIN
    IF body IS NOT NULL THEN
        IF json_typeof(body) <> 'object' THEN
            RAISE EXCEPTION 'redeliver: body is %, expected a JSON object of the signal''s fields', json_typeof(body)
                USING ERRCODE = 'invalid_parameter_value';
        END IF;
        IF octet_length(body::text) > payload_limit THEN
            RAISE EXCEPTION 'redeliver: body is % bytes of JSON, expected at most %', octet_length(body::text), payload_limit
                USING ERRCODE = 'invalid_parameter_value',
                HINT = 'Store large data elsewhere and pass a reference to it, or set pgflow.payload_limit.';
        END IF;
        PERFORM body::jsonb;  -- refuses what no text of a program can be: a NUL, half of a surrogate pair
    END IF;
    receiver := {schema}.dead_signal(signal_id, 'redeliver');
    SELECT w.status INTO final FROM {schema}.workflows AS w WHERE w.id = receiver;
    IF NOT FOUND OR final IN ('completed', 'cancelled') THEN
        RAISE EXCEPTION 'redeliver: the workflow % is %, nothing was delivered', receiver, coalesce(final, 'no longer there')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Drop the signal, or send what it says to another workflow.';
    END IF;
    -- As if it had just been sent: it gets the next number of the mailbox, whatever the workflow has taken meanwhile.
    UPDATE {schema}.signals AS s SET
        arrival = DEFAULT, number = NULL, dropped_at = NULL, problem = NULL, body = coalesce(redeliver.body, s.body)
    WHERE s.id = signal_id;
    IF has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        PERFORM pg_notify('{mail_channel}', coalesce(r.worker_id, r.last_worker, 0)::text)
        FROM {schema}.runs AS r WHERE r.workflow_id = receiver;
    END IF;
    RETURN signal_id;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.redeliver(uuid, json) IS
'Delivers a signal that was set aside anew, at the end of its receiver''s mailbox, with another body if one is given; returns its id. An error '
'when it is not set aside, or its receiver has ended.';
--;
CREATE FUNCTION {schema}.drop_signal(signal_id uuid) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    PERFORM {schema}.dead_signal(signal_id, 'drop_signal');
    UPDATE {schema}.signals AS s SET problem = NULL, dropped_at = now() WHERE s.id = signal_id;
    RETURN signal_id;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.drop_signal(uuid) IS
'Gives up a signal that was set aside; returns its id. An error when it is not set aside.';
--;
CREATE FUNCTION {schema}.dead_signal(signal_id uuid, what text) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    letter record;
BEGIN
    SELECT s.workflow_id, s.name, s.problem, s.consumed_at, s.dropped_at, s.number INTO letter
    FROM {schema}.signals AS s WHERE s.id = signal_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION '%: there is no signal %', what, coalesce(signal_id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
    IF letter.problem IS NULL THEN
        RAISE EXCEPTION '%: the signal "%" % is not set aside: it %', what, letter.name, signal_id, CASE
            WHEN letter.consumed_at IS NOT NULL THEN 'was taken by a listen'
            WHEN letter.dropped_at IS NOT NULL THEN 'was dropped'
            WHEN letter.number IS NOT NULL THEN 'waits in the mailbox'
            ELSE 'waits to be delivered' END
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN letter.workflow_id;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.dead_signal(uuid, text) IS
'Locks a signal that is set aside and returns its receiver; an error when it is not.';
