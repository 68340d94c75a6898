CREATE OR REPLACE FUNCTION {schema}.fork(workflow_id uuid, before text, id uuid DEFAULT NULL, queue text DEFAULT NULL) RETURNS uuid
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
    WHERE e.workflow_id = new_id AND e.kind = 'timeout' AND e.status <> 'pending' AND coalesce(e.completed_at, e.created_at) >= place.created_at
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
