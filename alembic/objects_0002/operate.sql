CREATE FUNCTION {schema}.pause(workflow_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    owner bigint;
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'pause');
    UPDATE {schema}.runs AS r SET
        pause_requested = (r.status = 'running'),
        status = CASE WHEN r.status = 'running' THEN r.status ELSE 'paused' END,
        last_worker = NULL
    WHERE r.workflow_id = workflow_id AND r.status IN ('pending', 'sleeping', 'running', 'paused')
    RETURNING coalesce(r.worker_id, 0) INTO owner;
    IF owner > 0 AND has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        PERFORM pg_notify('{mail_channel}', owner::text);
    END IF;
    RETURN owner IS NOT NULL;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.pause(uuid) IS
'Pauses a workflow: nobody goes on with it until it is resumed. One that runs is paused when its activities in flight have ended. '
'False when it has ended.';
--;
CREATE FUNCTION {schema}.resume(workflow_id uuid) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    found_queue text;
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
    RETURNING r.queue INTO found_queue;
    IF found_queue IS NOT NULL
        AND has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE')
    THEN
        PERFORM pg_notify('{wake_channel}', found_queue);
    END IF;
    RETURN found_queue IS NOT NULL;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.resume(uuid) IS 'Lets a paused workflow go on. False when it is not paused.';
--;
CREATE FUNCTION {schema}.must_exist(workflow_id uuid, what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = workflow_id) THEN
        RAISE EXCEPTION '%: there is no workflow %', what, coalesce(workflow_id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.must_exist(uuid, text) IS 'An error when there is no such workflow.';
--;
CREATE FUNCTION {schema}.retry(workflow_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    all_ids uuid[];
    run record;
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'retry');
    -- The workflow, and the failed children whose failures left it, and theirs.
    WITH RECURSIVE family AS (
        SELECT r.workflow_id AS id, r.reset FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id
        UNION
        SELECT child.workflow_id, child.reset
        FROM family
        JOIN {schema}.events AS e ON e.workflow_id = family.id AND e.location = ANY (family.reset) AND e.kind = 'child_output'
            AND e.status = 'failed'
        JOIN {schema}.runs AS child ON child.workflow_id = (e.input->>'id')::uuid AND child.status = 'failed'
    )
    SELECT array_agg(family.id) INTO all_ids FROM family;
    PERFORM FROM {schema}.runs AS r WHERE r.workflow_id = ANY (all_ids) ORDER BY r.workflow_id FOR NO KEY UPDATE;
    IF NOT EXISTS (SELECT FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id AND r.status = 'failed') THEN
        RAISE EXCEPTION 'retry: the workflow % is %, expected a failed one', workflow_id,
            (SELECT coalesce(w.status, r.status) FROM {schema}.workflows AS w
             LEFT JOIN {schema}.runs AS r ON r.workflow_id = w.id WHERE w.id = workflow_id)
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    FOR run IN
        SELECT r.* FROM {schema}.runs AS r WHERE r.workflow_id = ANY (all_ids) AND r.status = 'failed' ORDER BY r.workflow_id
    LOOP
        IF run.fork_before IS NOT NULL THEN
            RAISE EXCEPTION 'retry: the code of workflow % had gone on from the failure of the step at % before it failed; running '
                'that step again would bring code and history apart', run.workflow_id, {schema}.display_location(run.fork_before)
                USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Fork it: fork(%s, before=%s).', run.workflow_id, {schema}.display_location(run.fork_before));
        END IF;
        IF run.freed_key IS NOT NULL AND EXISTS (SELECT FROM {schema}.runs AS r WHERE r.unique_key = run.freed_key) THEN
            RAISE EXCEPTION 'retry: workflow % is unique, and meanwhile the live workflow % has its name and tags', run.workflow_id,
                (SELECT r.workflow_id FROM {schema}.runs AS r WHERE r.unique_key = run.freed_key)
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let that one end first.';
        END IF;
        -- The steps themselves, what a timeout among them had cancelled, and the loops around them.
        UPDATE {schema}.events AS e SET
            status = 'pending', attempts = 0, seq = NULL, completed_at = NULL, output = NULL,
            wake_at = CASE WHEN e.kind IN ('sleep', 'listen') OR (e.kind = 'timeout' AND e.status <> 'failed') THEN e.wake_at END
        WHERE e.workflow_id = run.workflow_id AND e.status <> 'completed' AND (
            e.location = ANY (run.reset)
            OR (e.status = 'cancelled' AND e.seq IN (
                SELECT t.seq FROM {schema}.events AS t
                WHERE t.workflow_id = run.workflow_id AND t.location = ANY (run.reset) AND t.kind = 'timeout' AND t.status = 'failed'))
            OR (e.kind = 'loop' AND EXISTS (
                SELECT FROM unnest(run.reset) AS inner_step (location) WHERE starts_with(inner_step.location, e.location || ','))));
        UPDATE {schema}.workflows AS w SET status = NULL, error = NULL, completed_at = NULL WHERE w.id = run.workflow_id;
        UPDATE {schema}.runs AS r SET
            status = 'pending', wake_at = now(), epoch = r.epoch + 1, reset = NULL, unique_key = r.freed_key, freed_key = NULL,
            cancel_requested = false, pause_requested = false
        WHERE r.workflow_id = run.workflow_id;
        IF has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
            PERFORM pg_notify('{wake_channel}', run.queue);
        END IF;
    END LOOP;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.retry(uuid) IS
'Runs a failed workflow again from its history: the steps whose failures left it get a new set of attempts, failed children are '
'retried too. An error when it is not failed, or when its code had gone on from the failure.';
--;
CREATE FUNCTION {schema}.fork(workflow_id uuid, before text, id uuid DEFAULT NULL, queue text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    new_id uuid := coalesce(id, {schema}.uuid7());
    new_queue text;
    place record;
    loop_row record;
    first_row record;
    turn text;
    progress int;
    rest text;
BEGIN
    PERFORM {schema}.must_exist(workflow_id, 'fork');
    IF EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = new_id AND w.forked_from = workflow_id) THEN
        RETURN new_id;  -- asked for twice: done once
    ELSIF EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = new_id) THEN
        RAISE EXCEPTION 'fork: the id % belongs to a workflow already', new_id USING ERRCODE = 'unique_violation', HINT = 'Choose another id.';
    END IF;
    -- History must not change while it is copied.
    PERFORM FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    SELECT h.location, h.created_at, h.seq INTO place FROM {schema}.history AS h WHERE h.workflow_id = workflow_id AND h.location = before COLLATE "C";
    IF NOT FOUND THEN
        RAISE EXCEPTION 'fork: history of workflow % has no step at %', workflow_id, {schema}.display_location(before)
            USING ERRCODE = 'no_data_found', HINT = 'Name the location of a step in active history, or in a turn that is kept.';
    END IF;
    INSERT INTO {schema}.workflows (id, name, tags, tags_given, input, seed, state, forked_from, created_at, cancellations)
    SELECT new_id, w.name, w.tags, w.tags_given, w.input, coalesce(w.seed, w.id), w.state, w.id, w.created_at, w.cancellations
    FROM {schema}.workflows AS w WHERE w.id = workflow_id;
    INSERT INTO {schema}.events (
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
        wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq)
    SELECT new_id, e.location, e.iteration, e.seq, e.version, e.kind, e.name, e.status, e.attempts, e.created_at, e.completed_at, e.input,
        e.output, e.error, e.wake_at, e.turn_state, e.turn_now, e.loop_progress, e.loop_state, e.encoding, e.turn_seq,
        e.loop_seq
    FROM {schema}.events AS e WHERE e.workflow_id = workflow_id AND e.location < before COLLATE "C";
    -- Each loop around the place goes back to the turn that the place is in.
    FOR loop_row IN
        SELECT h.location
        FROM {schema}.history AS h
        WHERE h.workflow_id = workflow_id AND h.kind = 'loop' AND starts_with(before, h.location || ',')
        ORDER BY h.location COLLATE "C"
    LOOP
        rest := substr(before, length(loop_row.location) + 2);
        turn := split_part(rest, ',', 1);
        progress := regexp_replace(turn, '[a-z]', '', 'g')::int - 1;
        SELECT h.turn_state, h.turn_seq INTO first_row
        FROM (
            SELECT e.workflow_id, e.location, e.turn_state, e.turn_seq FROM {schema}.events AS e
            UNION ALL
            SELECT f.workflow_id, f.location, f.turn_state, f.turn_seq FROM {schema}.forgotten_events AS f
        ) AS h
        WHERE h.workflow_id = workflow_id AND h.location >= loop_row.location || ',' || turn || ',' COLLATE "C"
          AND h.location < loop_row.location || ',' || turn || '-' COLLATE "C" AND h.turn_state IS NOT NULL
          AND position(',' IN substr(h.location, length(loop_row.location || ',' || turn) + 2)) = 0
        ORDER BY h.location COLLATE "C" LIMIT 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'fork: turn % of the loop at % has been trimmed from history', progress, {schema}.display_location(loop_row.location)
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fork before a turn that is kept, or before the loop.';
        END IF;
        -- Turns before it are of no use to a replay; the forgotten rows of its own turn come back.
        DELETE FROM {schema}.events AS e
        WHERE e.workflow_id = new_id AND e.location > loop_row.location || ',' COLLATE "C"
          AND e.location < loop_row.location || ',' || turn || ',' COLLATE "C";
        INSERT INTO {schema}.events (
            workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
            wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq)
        SELECT new_id, f.location, f.iteration, f.seq, f.version, f.kind, f.name, f.status, f.attempts, f.created_at, f.completed_at,
            f.input, f.output, f.error, f.wake_at, f.turn_state, f.turn_now, f.loop_progress, f.loop_state, f.encoding,
            f.turn_seq, f.loop_seq
        FROM {schema}.forgotten_events AS f
        WHERE f.workflow_id = workflow_id AND f.location > loop_row.location || ',' || turn || ',' COLLATE "C"
          AND f.location < before COLLATE "C"
        ON CONFLICT DO NOTHING;
        UPDATE {schema}.events AS e SET
            status = 'pending', seq = NULL, completed_at = NULL, output = NULL, error = NULL,
            loop_progress = progress, loop_state = first_row.turn_state, loop_seq = first_row.turn_seq
        WHERE e.workflow_id = new_id AND e.location = loop_row.location;
    END LOOP;
    -- It was cancelled, as far as it knows, where it holds a step that was, and before the last that it knows of.
    UPDATE {schema}.workflows AS w SET cancellations = (
        SELECT array_agg(c ORDER BY c)
        FROM unnest(w.cancellations) AS c
        WHERE EXISTS (SELECT FROM {schema}.events AS e WHERE e.workflow_id = new_id AND e.status = 'cancelled' AND e.seq = c)
           OR c < (SELECT max(greatest(e.seq, e.turn_seq, e.loop_seq)) FROM {schema}.events AS e WHERE e.workflow_id = new_id))
    WHERE w.id = new_id AND w.cancellations IS NOT NULL;
    -- Deadlines that were open around the place count anew.
    UPDATE {schema}.events AS e SET status = 'pending', seq = NULL, completed_at = NULL, error = NULL, wake_at = NULL
    WHERE e.workflow_id = new_id AND e.kind = 'timeout' AND e.status <> 'pending' AND e.completed_at >= place.created_at
      AND e.created_at <= place.created_at;
    IF EXISTS (
        SELECT FROM {schema}.events AS c
        WHERE c.workflow_id = new_id AND c.kind = 'child_workflow' AND c.status = 'completed'
          AND NOT EXISTS (
              SELECT FROM {schema}.events AS o
              WHERE o.workflow_id = new_id AND o.kind = 'child_output' AND o.status <> 'pending' AND o.input->>'id' = c.output->>'id')
    ) THEN
        RAISE EXCEPTION 'fork: before % the workflow % had dispatched a child whose output is not recorded yet; a fork would share it',
            {schema}.display_location(before), workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fork before the child was dispatched, or after its output was recorded.';
    END IF;
    new_queue := coalesce(queue, (SELECT r.queue FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id), 'default');
    INSERT INTO {schema}.runs (workflow_id, name, queue, status, wake_at, epoch)
    SELECT new_id, w.name, new_queue, 'pending', now(), 1 FROM {schema}.workflows AS w WHERE w.id = new_id;
    IF has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE') THEN
        PERFORM pg_notify('{wake_channel}', new_queue);
    END IF;
    RETURN new_id;
END
$function$;
--;
COMMENT ON FUNCTION {schema}.fork(uuid, text, uuid, text) IS
'Starts a new workflow from a copy of a workflow''s history before a location (in stored form) and returns its id.';
