CREATE FUNCTION {schema}.rewind(
    workflow_id uuid, before text, children text DEFAULT 'leave', reason text DEFAULT NULL, actor text DEFAULT NULL, dry_run boolean DEFAULT false,
    request uuid DEFAULT NULL
) RETURNS jsonb
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    run record;
    flow record;
    kept record;
    ended boolean;
    number int;
    key bytea;
    holder uuid;
    undone record;
    mail record;
    child uuid;
    live uuid[];
    recorded uuid[];
    result jsonb;
    violated text;
BEGIN
    IF children IS NULL OR children NOT IN ('leave', 'cancel') THEN
        RAISE EXCEPTION 'rewind: children=%: expected leave or cancel', coalesce(quote_literal(left(children, 300)), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF before IS NULL THEN
        RAISE EXCEPTION 'rewind: before is null, expected the location of a step' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM {schema}.must_exist(workflow_id, 'rewind');
    IF NOT EXISTS (
        SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) AND a.attname = 'rewind'
        JOIN pg_type AS t ON t.typrelid = i.indrelid
        WHERE t.oid = pg_typeof(NULL::{schema}.forgotten_events) AND i.indisprimary)
    THEN
        RAISE EXCEPTION 'rewind: the key of forgotten history has not been built anew since the schema was upgraded'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Upgrade again: pgflow db upgrade goes on with it.';
    END IF;
    -- The run first, then what is kept of the workflow. One that has ended has no run: two who rewind it meet at its other row.
    SELECT r.* INTO run FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    ended := NOT FOUND;
    SELECT w.* INTO flow FROM {schema}.workflows AS w WHERE w.id = workflow_id FOR NO KEY UPDATE;
    -- Sent again, since the answer was lost: it is done once.
    SELECT a.details INTO result FROM {schema}.audit AS a
    WHERE a.workflow_id = workflow_id AND a.operation = 'rewind' AND a.details->>'request' = request::text;
    IF FOUND THEN
        RETURN result;
    END IF;
    IF ended AND EXISTS (SELECT FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id) THEN
        RAISE EXCEPTION 'rewind: somebody else has rewound the workflow % at the same moment', workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Look at it; pause it first to rewind it again.';
    ELSIF NOT ended AND run.status NOT IN ('paused', 'failed') THEN
        RAISE EXCEPTION 'rewind: the workflow % is %, expected one that is paused or failed, or has ended', workflow_id,
            CASE WHEN run.pause_requested THEN run.status || ' and about to be paused' ELSE run.status END
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = CASE WHEN run.pause_requested THEN 'It is paused when its activities in flight have ended.' ELSE 'Pause it first.' END;
    ELSIF ended AND flow.status IS NULL THEN
        RAISE EXCEPTION 'rewind: the workflow % has neither ended nor a row in runs', workflow_id USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    SELECT k.* INTO kept FROM {schema}.ends AS k
    WHERE ended AND k.ended_at = coalesce(flow.completed_at, flow.created_at) AND k.workflow_id = workflow_id;
    key := CASE WHEN ended THEN kept.unique_key ELSE coalesce(run.unique_key, run.freed_key) END;
    SELECT r.workflow_id INTO holder FROM {schema}.runs AS r WHERE r.unique_key = key AND r.workflow_id <> workflow_id;
    IF FOUND THEN
        RAISE EXCEPTION 'rewind: workflow % is unique, and meanwhile the live workflow % has its name and tags', workflow_id, holder
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let that one end first.';
    END IF;
    -- Code of before meets the marked name of its run when it dispatches another of its name and tags, and would fail.
    IF key IS NOT NULL AND EXISTS (SELECT FROM {schema}.workers AS w WHERE w.expires_at > now() AND w.names IS NULL) THEN
        RAISE EXCEPTION 'rewind: the workflow % is unique, and workers of an older version of pgflow still run, which would fail on finding it', workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Replace them first.';
    END IF;
    number := coalesce(cardinality(flow.rewinds), 0) + 1;
    BEGIN
        SELECT * INTO undone FROM {schema}.undo_history(workflow_id, before, number);
        -- Children that have been pruned since, and whose output would be asked for again.
        PERFORM FROM {schema}.workflows AS c WHERE c.id IN (
            SELECT (e.output->>'id')::uuid FROM {schema}.events AS e
            WHERE e.workflow_id = workflow_id AND e.kind = 'child_workflow' AND e.status = 'completed')
        ORDER BY c.id FOR KEY SHARE;
        SELECT (e.output->>'id')::uuid INTO child
        FROM {schema}.events AS e
        WHERE e.workflow_id = workflow_id AND e.kind = 'child_workflow' AND e.status = 'completed'
          AND NOT EXISTS (
              SELECT FROM {schema}.workflows AS c WHERE c.id = (e.output->>'id')::uuid AND c.status IS DISTINCT FROM 'removing')
          AND NOT EXISTS (
              SELECT FROM {schema}.events AS o
              WHERE o.workflow_id = workflow_id AND o.kind = 'child_output' AND o.status <> 'pending' AND o.input->>'id' = e.output->>'id')
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'rewind: before % the workflow % had started the child %, whose output it has not got there, and that child has been removed',
                {schema}.display_location(before), workflow_id, child
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Rewind before the step that started it: another is started then.';
        END IF;
        SELECT * INTO mail FROM {schema}.return_signals(
            workflow_id, number, CASE WHEN ended THEN flow.completed_at END, CASE WHEN ended THEN 0 ELSE run.mailbox END, before);
        IF ended OR run.status = 'failed' THEN  -- what was asked of it before its end is over with it
            DELETE FROM {schema}.requests AS q WHERE q.workflow_id = workflow_id AND q.kind = 'cancel';
        END IF;
        -- Behind its name stands a character that no name has: workers of before, whose ids know of no rewinds, find it under none of theirs.
        IF ended THEN
            INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, epoch, mailbox, unique_key, waiters, created_at)
            VALUES (workflow_id, flow.name || chr(31), coalesce(kept.queue, 'default'), coalesce(kept.priority, 0), 'pending', now(),
                least(greatest(kept.epoch, 16777216), 2147483645) + 1, mail.last, key, kept.waiters, flow.created_at);
            PERFORM {schema}.forget_end(workflow_id);
        ELSE
            UPDATE {schema}.runs AS r SET
                name = flow.name || chr(31), status = 'pending', wake_at = now(), epoch = least(r.epoch, 2147483645) + 1, mailbox = mail.last,
                unique_key = key, freed_key = NULL, waiting_for = NULL, awaits_children = false, worker_id = NULL, claim = NULL,
                last_worker = NULL, reset = NULL, fork_before = NULL, suspicions = NULL, crashes = NULL, presumed = NULL, suspected_at = NULL,
                pause_requested = false, cancel_requested = r.cancel_requested AND run.status = 'paused'
            WHERE r.workflow_id = workflow_id;
        END IF;
        UPDATE {schema}.workflows AS w SET
            status = NULL, output = NULL, error = NULL, completed_at = NULL, rewinds = w.rewinds || undone.undone,
            cancellations = (SELECT array_agg(c ORDER BY c) FROM unnest(w.cancellations) AS c WHERE undone.cut IS NULL OR c <= undone.cut)
        WHERE w.id = workflow_id;
        SELECT array_agg(DISTINCT c.id ORDER BY c.id) INTO live
        FROM {schema}.forgotten_events AS f
        JOIN {schema}.workflows AS c ON c.id = (f.output->>'id')::uuid AND c.parent_id = workflow_id AND c.status IS NULL
        WHERE f.workflow_id = workflow_id AND f.rewind = number AND f.kind = 'child_workflow' AND f.status = 'completed';
        -- And those whose step has no row: its turn was trimmed, or its process died before it was written.
        SELECT array_agg(DISTINCT o.id ORDER BY o.id) INTO live
        FROM (
            SELECT unnest(live) AS id
            UNION ALL
            SELECT c.id FROM {schema}.workflows AS c
            WHERE c.parent_id = workflow_id AND c.status IS NULL AND c.parent_location >= before COLLATE "C"
              AND NOT EXISTS (
                  SELECT FROM {schema}.forgotten_events AS f
                  WHERE f.workflow_id = workflow_id AND f.rewind < number AND f.kind = 'child_workflow' AND f.output->>'id' = c.id::text)
        ) AS o;
        IF children = 'cancel' THEN
            FOREACH child IN ARRAY coalesce(live, '{}') LOOP
                PERFORM {schema}.cancel(child, reason, actor);
            END LOOP;
        END IF;
        -- Who has recorded the output keeps it.
        SELECT array_agg(DISTINCT o.workflow_id ORDER BY o.workflow_id) INTO recorded
        FROM unnest(array_append(kept.waiters || CASE WHEN NOT ended THEN run.waiters END, flow.parent_id)) AS told (id)
        JOIN {schema}.events AS o ON o.workflow_id = told.id
        WHERE o.kind = 'child_output' AND o.status <> 'pending' AND o.input->>'id' = workflow_id::text;
        result := jsonb_build_object(
            'rewind', number, 'steps', undone.steps, 'signals', mail.returned, 'children', to_jsonb(coalesce(live, '{}')),
            'recorded_by', to_jsonb(coalesce(recorded, '{}')));
        PERFORM {schema}.write_audit('rewind', workflow_id, NULL, reason, actor,
            result || jsonb_build_object('before', {schema}.display_location(before), 'children_are', children)
            || jsonb_strip_nulls(jsonb_build_object('request', request)));
        IF {schema}.may_hint() THEN
            PERFORM pg_notify('{wake_channel}', r.queue) FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id;
        END IF;
        IF dry_run THEN
            RAISE EXCEPTION USING ERRCODE = 'PF000';  -- takes back what was done
        END IF;
    EXCEPTION
        WHEN SQLSTATE 'PF000' THEN
            NULL;
        WHEN unique_violation THEN
            GET STACKED DIAGNOSTICS violated = CONSTRAINT_NAME;
            IF violated <> 'runs_unique_key' THEN
                RAISE;
            END IF;
            RAISE EXCEPTION 'rewind: workflow % is unique, and at this moment another one of its name and tags was started', workflow_id
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let that one end first.';
    END;
    RETURN result;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.rewind(uuid, text, text, text, text, boolean, uuid) IS
'Lets a workflow that is paused or failed, or has ended, run again under its own id from before a location (in stored form). What came after goes to forgotten '
'history, signals that were taken there return; children started there are left or cancelled. With dry_run nothing is done; asked for twice under one request, it is done once. Returns what was undone. The '
'reason and the actor go into the table audit.';
