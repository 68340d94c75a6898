CREATE FUNCTION {schema}.end_cancelled(workflow_id uuid, error json) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    gone record;
    parent uuid;
    heirs uuid[];
BEGIN
    -- In the order of the journal: the run first, then what is kept of the workflow, then those who are told. Nothing that its worker
    -- still sends takes effect without the run's row.
    DELETE FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id
    RETURNING r.waiters, coalesce(r.worker_id, r.last_worker, 0) AS owner INTO gone;
    UPDATE {schema}.workflows AS w SET status = 'cancelled', error = error, completed_at = now() WHERE w.id = workflow_id
    RETURNING w.parent_id INTO parent;
    WITH told AS (
        INSERT INTO {schema}.requests (workflow_id, kind)
        SELECT parent, 'child' WHERE parent IS NOT NULL
        UNION
        SELECT waiter.id, 'child' FROM unnest(gone.waiters) AS waiter (id)
        UNION ALL
        SELECT w.id, 'cancel' FROM {schema}.workflows AS w WHERE w.parent_id = workflow_id AND NOT w.detached AND w.status IS NULL
        RETURNING requests.workflow_id
    )
    SELECT array_agg(told.workflow_id) INTO heirs FROM told;
    UPDATE {schema}.signals AS s SET dropped_at = now()
    WHERE s.workflow_id = workflow_id AND s.number IS NOT NULL AND s.consumed_at IS NULL AND s.dropped_at IS NULL;
    IF {schema}.may_hint() THEN
        PERFORM pg_notify('{done_channel}', workflow_id::text);
        PERFORM pg_notify('{mail_channel}', owners.owner::text)
        FROM (
            SELECT gone.owner WHERE gone.owner <> 0
            UNION
            SELECT coalesce(r.worker_id, r.last_worker, 0) FROM {schema}.runs AS r WHERE r.workflow_id = ANY (heirs)
        ) AS owners;
    END IF;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.end_cancelled(uuid, json) IS
'Ends a workflow as cancelled whose row in runs the caller has locked: who waits for it is told, its children are asked to cancel.';
--;
CREATE FUNCTION {schema}.terminate(workflow_id uuid, reason text DEFAULT NULL, actor text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'terminate');
    PERFORM FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id AND r.status <> 'failed' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM {schema}.end_cancelled(workflow_id, json_build_object('type', 'WorkflowTerminated', 'message',
        CASE WHEN coalesce(reason, '') = '' THEN 'terminated by an operator' ELSE 'terminated by an operator: ' || left(reason, 2000) END));
    PERFORM {schema}.write_audit('terminate', workflow_id, NULL, reason, actor);
    RETURN true;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.terminate(uuid, text, text) IS
'Ends a live workflow at once as cancelled, without a worker and without its code, which cannot compensate; false when it has ended. Its children are '
'asked to cancel. The reason and the actor go into the table audit.';
--;
CREATE FUNCTION {schema}.operate_many(
    operation text, workflow_ids uuid[], reason text DEFAULT NULL, actor text DEFAULT NULL, dry_run boolean DEFAULT false
) RETURNS TABLE (id uuid, refused text)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    hint text;
    patience text;
BEGIN
    IF operation IS NULL OR operation NOT IN ('cancel', 'pause', 'resume', 'retry', 'terminate') THEN
        RAISE EXCEPTION 'operate_many: the operation is %, expected cancel, pause, resume, retry or terminate', coalesce(quote_literal(operation), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(workflow_ids) > 1000 THEN
        RAISE EXCEPTION 'operate_many: there are % ids, expected at most 1000', cardinality(workflow_ids)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'All of them are locked until the commit. Call it for some at a time.';
    END IF;
    -- One that somebody else has locked must not hold up the others for long.
    patience := current_setting('lock_timeout');
    PERFORM set_config('lock_timeout', '1s', true);
    -- In the order of their ids, so that two of these do not wait for each other crosswise.
    FOR id IN SELECT DISTINCT given.id FROM unnest(workflow_ids) AS given (id) ORDER BY given.id LOOP
        refused := NULL;
        BEGIN
            CASE operation
                WHEN 'cancel' THEN
                    refused := CASE WHEN NOT {schema}.cancel(id, reason, actor) THEN 'it has ended already' END;
                WHEN 'pause' THEN
                    refused := CASE WHEN NOT {schema}.pause(id, reason, actor) THEN 'it has ended already' END;
                WHEN 'resume' THEN
                    refused := CASE WHEN NOT {schema}.resume(id, reason, actor) THEN 'it is not paused' END;
                WHEN 'terminate' THEN
                    refused := CASE WHEN NOT {schema}.terminate(id, reason, actor) THEN 'it has ended already' END;
                ELSE
                    PERFORM {schema}.retry(id, reason, actor);
            END CASE;
            IF dry_run THEN
                RAISE EXCEPTION USING ERRCODE = 'PF000';  -- takes back what was done
            END IF;
        EXCEPTION
            WHEN SQLSTATE 'PF000' THEN
                NULL;
            WHEN object_not_in_prerequisite_state OR unique_violation OR no_data_found OR lock_not_available OR deadlock_detected THEN
                GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
                IF SQLSTATE = '55P03' THEN
                    -- All that was done so far is locked until the commit: the others together wait hardly longer than this one did.
                    PERFORM set_config('lock_timeout', '5ms', true);
                END IF;
                refused := SQLERRM || CASE WHEN hint <> '' THEN '. ' || hint ELSE '' END;
        END;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config('lock_timeout', patience, true);
END
$function$;
--;
COMMENT ON FUNCTION {schema}.operate_many(text, uuid[], text, text, boolean) IS
'Cancels, pauses, resumes, retries or terminates up to 1000 workflows: a row for each, with why it was refused, null if it was done. With dry_run nothing is '
'done. The reason and the actor go into the table audit, a row for each that was changed.';
