-- The functions of the schema as all migrations together leave them: to be read, and never executed.
-- Written by `python -m tests.schema.test_current`, and compared with a migrated database by the tests.


-- Asks in the caller's transaction that a workflow be cancelled; false when it has ended already, an error when it is unknown. The reason and the actor go into the table audit.
-- cancel(workflow_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
DECLARE
    final text;
BEGIN
    SELECT w.status INTO final FROM "pgflow".workflows AS w WHERE w.id = workflow_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'cancel: there is no workflow %', coalesce(workflow_id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
    IF final IS NOT NULL THEN
        RETURN false;
    END IF;
    -- No worker has ever had it, and a fork has the history of another, which may have to be compensated.
    PERFORM FROM "pgflow".runs AS r
    WHERE r.workflow_id = workflow_id AND r.epoch = 0 AND r.status IN ('pending', 'paused')
      AND NOT EXISTS (SELECT FROM "pgflow".workflows AS w WHERE w.id = workflow_id AND w.forked_from IS NOT NULL)
    FOR NO KEY UPDATE OF r SKIP LOCKED;
    IF FOUND THEN
        PERFORM "pgflow".end_cancelled(workflow_id, NULL);
        PERFORM "pgflow".write_audit('cancel', workflow_id, NULL, reason, actor);
        RETURN true;
    END IF;
    INSERT INTO "pgflow".requests (workflow_id, kind) VALUES (workflow_id, 'cancel');
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', coalesce(r.worker_id, r.last_worker, 0)::text)
        FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id;
    END IF;
    PERFORM "pgflow".write_audit('cancel', workflow_id, NULL, reason, actor);
    RETURN true;
END


-- Copies active history as it was before a step, in both orders, to another workflow id, and returns the last place in the order of completion that is in the copy (null: all). Rewound history is not looked at. What a fork and a rewind begin with.
-- copy_history(workflow_id uuid, before text, new_id uuid, what text)
-- RETURNS integer
#variable_conflict use_variable
DECLARE
    place record;
    cut int;  -- results up to this place in the order of completion are copied; null: all
    since timestamptz;  -- when the first result that is not copied was committed; null: there is none
    loop_row record;
    turn_row record;
    turn text;
    progress int;
    state json;
    start int;
    passed text := '';
BEGIN
    SELECT h.kind, h.completed_at INTO place
    FROM "pgflow".history AS h WHERE h.workflow_id = workflow_id AND h.location = before COLLATE "C" AND h.rewind = 0;
    IF NOT FOUND THEN
        RAISE EXCEPTION '%: history of workflow % has no step at %', what, workflow_id, "pgflow".display_location(before)
            USING ERRCODE = 'no_data_found', HINT = CASE
                WHEN EXISTS (
                    SELECT FROM "pgflow".events AS e
                    WHERE e.workflow_id = workflow_id AND e.kind = 'loop' AND starts_with(before, e.location || ',')
                      AND "pgflow".turn_of(before, e.location) < e.loop_progress)
                    AND NOT EXISTS (
                        SELECT FROM "pgflow".history AS h
                        WHERE h.workflow_id = workflow_id AND h.rewind = 0
                          AND h.location > before || ',' COLLATE "C" AND h.location < before || '-' COLLATE "C")
                    THEN 'That turn of the loop has been trimmed from history. Name a step in a turn that is kept, or the loop.'
                WHEN EXISTS (
                    SELECT FROM "pgflow".history AS h
                    WHERE h.workflow_id = workflow_id AND h.rewind = 0
                      AND h.location > before || ',' COLLATE "C" AND h.location < before || '-' COLLATE "C")
                    THEN format('That is a turn or another body. Name a step in it: %s is the first.', (
                        SELECT "pgflow".display_location(min(h.location)) FROM "pgflow".history AS h
                        WHERE h.workflow_id = workflow_id AND h.rewind = 0
                          AND h.location > before || ',' COLLATE "C" AND h.location < before || '-' COLLATE "C"))
                ELSE 'Name the location of a step in active history, or in a turn that is kept.' END;
    END IF;
    -- What is copied came before in both orders. Of the results, those before the first one at the place or behind it: a result that
    -- came after one that is dropped may have come because of it.
    SELECT min(h.seq) - 1 INTO cut FROM "pgflow".history AS h
    WHERE h.workflow_id = workflow_id AND h.location >= before COLLATE "C" AND h.rewind = 0;
    -- A loop behind the place whose first turns are gone may have had results ever since it was opened.
    SELECT least(cut, min(r.seq) - 1) INTO cut
    FROM "pgflow".history AS l
    JOIN "pgflow".history AS r ON r.workflow_id = l.workflow_id AND r.seq IS NOT NULL AND r.completed_at >= l.created_at AND r.rewind = 0
    WHERE l.workflow_id = workflow_id AND l.kind = 'loop' AND l.location >= before COLLATE "C" AND l.loop_progress > 0
      AND l.rewind = 0
      AND NOT EXISTS (
          SELECT FROM "pgflow".history AS t
          WHERE t.workflow_id = workflow_id AND t.rewind = 0 AND t.location >= l.location || ',1,' COLLATE "C" AND t.location < l.location || ',1-' COLLATE "C");
    SELECT h.completed_at INTO since
    FROM "pgflow".history AS h WHERE h.workflow_id = workflow_id AND h.seq > cut AND h.rewind = 0 ORDER BY h.seq, h.completed_at LIMIT 1;
    IF since IS NULL AND place.kind NOT IN ('branch', 'version_check', 'removed') THEN
        since := place.completed_at;
    END IF;
    INSERT INTO "pgflow".events (
        workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
        wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq)
    SELECT new_id, e.location, e.iteration, e.seq, e.version, e.kind, e.name, e.status, e.attempts, e.created_at, e.completed_at, e.input,
        e.output, e.error, e.wake_at, e.turn_state, e.turn_now, e.loop_progress, e.loop_state, e.encoding, e.turn_seq,
        e.loop_seq
    FROM "pgflow".events AS e WHERE e.workflow_id = workflow_id AND e.location < before COLLATE "C";
    -- Each loop that had not ended by then goes back to the turn that it was in, the outer ones first.
    LOOP
        SELECT e.location, e.status, e.seq, e.created_at, coalesce(e.loop_progress, 0) AS progress, e.loop_state, e.loop_seq,
            CASE WHEN starts_with(before, e.location || ',') THEN "pgflow".turn_of(before, e.location) END AS last
        INTO loop_row
        FROM "pgflow".events AS e
        WHERE e.workflow_id = new_id AND e.kind = 'loop' AND e.location > passed COLLATE "C"
        ORDER BY e.location COLLATE "C" LIMIT 1;
        EXIT WHEN NOT FOUND;
        passed := loop_row.location;
        CONTINUE WHEN loop_row.last IS NULL AND loop_row.seq IS NOT NULL AND (cut IS NULL OR loop_row.seq <= cut);
        IF loop_row.created_at > since THEN  -- it was opened later
            DELETE FROM "pgflow".events AS e
            WHERE e.workflow_id = new_id AND (e.location = loop_row.location OR starts_with(e.location, loop_row.location || ','));
            CONTINUE;
        END IF;
        progress := NULL;
        SELECT n.number, h.turn_state, h.turn_seq INTO turn_row
        FROM (
            SELECT e.workflow_id, e.location, e.turn_state, e.turn_seq FROM "pgflow".events AS e
            UNION ALL
            SELECT f.workflow_id, f.location, f.turn_state, f.turn_seq FROM "pgflow".forgotten_events AS f WHERE f.rewind = 0
        ) AS h
        CROSS JOIN LATERAL (SELECT string_to_array(substr(h.location, length(loop_row.location) + 2), ',') AS rest) AS r
        CROSS JOIN LATERAL (SELECT regexp_replace(r.rest[1], '[a-z]', '', 'g')::int - 1 AS number) AS n
        WHERE h.workflow_id = workflow_id AND h.turn_state IS NOT NULL AND cardinality(r.rest) = 2
          AND h.location > loop_row.location || ',' COLLATE "C" AND h.location < loop_row.location || '-' COLLATE "C"
          AND (cut IS NULL OR coalesce(h.turn_seq, 0) <= cut) AND (loop_row.last IS NULL OR n.number <= loop_row.last)
        ORDER BY n.number DESC, h.location COLLATE "C" LIMIT 1;
        IF FOUND THEN
            progress := turn_row.number;
            state := turn_row.turn_state;
            start := turn_row.turn_seq;
        END IF;
        IF loop_row.last IS NULL AND loop_row.status <> 'completed' AND loop_row.progress > coalesce(progress, -1)
            AND (cut IS NULL OR coalesce(loop_row.loop_seq, 0) <= cut)
        THEN  -- a turn that had no row yet
            progress := loop_row.progress;
            state := loop_row.loop_state;
            start := loop_row.loop_seq;
        END IF;
        IF progress IS NULL THEN
            RAISE EXCEPTION '%: before % the loop at % was in a turn that has been trimmed from history', what,
                "pgflow".display_location(before), "pgflow".display_location(loop_row.location)
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Choose a place before a turn that is kept, or before the loop.';
        END IF;
        turn := "pgflow".turn_location(loop_row.location, progress) || ',';
        -- Turns before it are of no use to a replay; its own forgotten rows come back.
        DELETE FROM "pgflow".events AS e
        WHERE e.workflow_id = new_id AND starts_with(e.location, loop_row.location || ',') AND NOT starts_with(e.location, turn);
        INSERT INTO "pgflow".events (
            workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
            wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq)
        SELECT new_id, f.location, f.iteration, f.seq, f.version, f.kind, f.name, f.status, f.attempts, f.created_at, f.completed_at,
            f.input, f.output, f.error, f.wake_at, f.turn_state, f.turn_now, f.loop_progress, f.loop_state, f.encoding,
            f.turn_seq, f.loop_seq
        FROM "pgflow".forgotten_events AS f
        WHERE f.workflow_id = workflow_id AND f.rewind = 0 AND f.location > loop_row.location || ',' COLLATE "C"
          AND f.location < loop_row.location || '-' COLLATE "C" AND starts_with(f.location, turn) AND f.location < before COLLATE "C"
        ON CONFLICT DO NOTHING;
        UPDATE "pgflow".events AS e SET
            status = 'pending', seq = NULL, completed_at = NULL, output = NULL, error = NULL,
            loop_progress = progress, loop_state = state, loop_seq = start
        WHERE e.workflow_id = new_id AND e.location = loop_row.location;
    END LOOP;
    -- What ended later has not ended; its deadlines count anew. So with what the code itself cancelled: it does so again.
    UPDATE "pgflow".events AS e SET
        status = 'pending', attempts = 0, seq = NULL, completed_at = NULL, output = NULL, error = NULL, wake_at = NULL
    WHERE e.workflow_id = new_id AND e.kind <> 'loop' AND (
        e.seq > cut
        OR (e.seq IS NULL AND e.status = 'cancelled')
        OR (e.seq IS NULL AND e.status = 'completed' AND e.kind = 'timeout' AND coalesce(e.completed_at, e.created_at) >= since));
    -- What was called later goes, unless a row that stays has been called after it: history has no holes.
    WITH stays AS MATERIALIZED (
        SELECT array_to_string((string_to_array(k.location, ','))[1:depth], ',') AS scope, max(k.location COLLATE "C") AS last
        FROM "pgflow".events AS k
        CROSS JOIN LATERAL generate_series(0, cardinality(string_to_array(k.location, ',')) - 1) AS depth
        WHERE k.workflow_id = new_id AND (k.seq IS NOT NULL OR k.created_at <= since)
        GROUP BY 1
    )
    DELETE FROM "pgflow".events AS e
    WHERE e.workflow_id = new_id AND e.location = ANY (ARRAY(
        SELECT c.location
        FROM "pgflow".events AS c
        LEFT JOIN stays ON stays.scope = array_to_string(trim_array(string_to_array(c.location, ','), 1), ',')
        WHERE c.workflow_id = new_id AND c.seq IS NULL AND c.created_at > since
          AND (stays.last IS NULL OR stays.last < c.location COLLATE "C")));
    RETURN cut;
END


-- Locks a signal that is set aside and returns its receiver; an error when it is not.
-- dead_signal(signal_id uuid, what text)
-- RETURNS uuid
#variable_conflict use_variable
DECLARE
    letter record;
BEGIN
    SELECT s.workflow_id, s.name, s.problem, s.consumed_at, s.dropped_at, s.number INTO letter
    FROM "pgflow".signals AS s WHERE s.id = signal_id FOR NO KEY UPDATE;
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


-- Starts a workflow in the caller's transaction and returns its id. An id used before with the same name, or a live workflow of the same name and tags when is_unique, comes back and nothing is started.
-- dispatch(name text, input json DEFAULT '{}'::json, tags jsonb DEFAULT NULL::jsonb, id uuid DEFAULT NULL::uuid, is_unique boolean DEFAULT false, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, priority integer DEFAULT 0, queue text DEFAULT 'default'::text, timeout interval DEFAULT NULL::interval)
-- RETURNS uuid
#variable_conflict use_variable
DECLARE
    given_id uuid := coalesce(id, "pgflow".uuid7());
    given_tags jsonb := coalesce(tags, '{}');
    payload_limit int := coalesce(nullif(current_setting('pgflow.payload_limit', true), '')::int, 1048576);
    after interval := make_interval(secs => extract(epoch FROM timeout)::double precision);  -- a month is 30 days
    key bytea;
    found_id uuid;
    found_name text;
BEGIN
    IF coalesce(name, '') = '' OR length(name) > 200 OR name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'dispatch: name is %, expected the name of a workflow (1 to 200 printable characters)',
            coalesce(quote_literal(name), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(json_typeof(input), 'null') <> 'object' THEN
        RAISE EXCEPTION 'dispatch: input is %, expected a JSON object of the arguments by name', coalesce(json_typeof(input), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(input::text) > payload_limit THEN
        RAISE EXCEPTION 'dispatch: input is % bytes of JSON, expected at most %', octet_length(input::text), payload_limit
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Store large data elsewhere and pass a reference to it, or set pgflow.payload_limit.';
    END IF;
    PERFORM input::jsonb;  -- refuses what no text of a program can be: a NUL, half of a surrogate pair
    IF jsonb_typeof(given_tags) <> 'object' OR EXISTS (
        SELECT FROM jsonb_each(CASE jsonb_typeof(given_tags) WHEN 'object' THEN given_tags ELSE '{}' END) AS tag
        WHERE jsonb_typeof(tag.value) IN ('object', 'array')
    ) THEN
        RAISE EXCEPTION 'dispatch: tags are %, expected a flat JSON object', given_tags
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF octet_length(given_tags::text) > 16384 THEN
        RAISE EXCEPTION 'dispatch: tags are % bytes of JSON, expected at most 16384', octet_length(given_tags::text)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(queue, '') = '' OR length(queue) > 200 OR queue ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'dispatch: queue is %, expected the name of a queue (1 to 200 printable characters)',
            coalesce(quote_literal(queue), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF run_at >= timestamptz '10000-01-01 00:00:00+00' AND run_at <> 'infinity' THEN
        RAISE EXCEPTION 'dispatch: run_at is %, expected a moment before the year 10000, or infinity', run_at
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF timeout <= interval '0' OR timeout > interval '36600 days' THEN
        RAISE EXCEPTION 'dispatch: timeout is %, expected more than nothing and at most 36600 days', timeout
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF is_unique THEN
        key := sha256(convert_to(name || chr(31) || given_tags::text, 'UTF8'));  -- as the clients' statement has it
    END IF;
    -- Another transaction may start the same, or end it, between two statements of this one: a few rounds, then an error.
    FOR round IN 1 .. 10 LOOP
        SELECT w.id, CASE w.status WHEN 'removing' THEN w.name || ' (being removed)' ELSE w.name END INTO found_id, found_name FROM "pgflow".workflows AS w WHERE w.id = given_id;
        IF FOUND THEN
            IF found_name <> name THEN
                RAISE EXCEPTION 'dispatch: the id % belongs to a workflow "%", expected "%"', given_id, found_name, name
                    USING ERRCODE = 'unique_violation', HINT = 'Choose another id.';
            END IF;
            RETURN given_id;
        END IF;
        IF key IS NOT NULL THEN
            SELECT r.workflow_id INTO found_id FROM "pgflow".runs AS r WHERE r.unique_key = key;
            IF FOUND THEN
                RETURN found_id;
            END IF;
        END IF;
        -- In the order of the clients' statement, so that the two never wait for each other crosswise: what is
        -- unique enters `runs` first, all else `workflows`.
        IF key IS NOT NULL THEN
            BEGIN
                INSERT INTO "pgflow".runs (workflow_id, name, queue, priority, status, wake_at, unique_key, deadline)
                VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key, now() + after)
                ON CONFLICT DO NOTHING;
            EXCEPTION WHEN lock_not_available OR query_canceled THEN
                RAISE EXCEPTION 'dispatch: expected to learn in time whether a live workflow "%" has the tags %; most likely a transaction that is '
                    'still open starts or ends it', name, given_tags
                    USING ERRCODE = 'lock_not_available', HINT = 'Try again when it has ended; pg_stat_activity shows it.';
            END;
            CONTINUE WHEN NOT FOUND;
        END IF;
        INSERT INTO "pgflow".workflows (id, name, tags, input, timeout)
        VALUES (given_id, name, given_tags, input, extract(epoch FROM after)::double precision)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            DELETE FROM "pgflow".runs AS r WHERE key IS NOT NULL AND r.workflow_id = given_id;
            CONTINUE;
        END IF;
        IF key IS NULL THEN
            INSERT INTO "pgflow".runs (workflow_id, name, queue, priority, status, wake_at, deadline)
            VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), now() + after);
        END IF;
        -- A hint, where hints can be sent.
        IF (run_at IS NULL OR run_at <= now())
            AND "pgflow".may_hint()
        THEN
            PERFORM pg_notify('pgflow_wake_b0e190599d32269b', queue);
        END IF;
        PERFORM "pgflow".hint_at_deadline(extract(epoch FROM after)::double precision);
        RETURN given_id;
    END LOOP;
    RAISE EXCEPTION 'dispatch: workflow "%" with tags % is started and ended by others all the time', name, given_tags
        USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
END


-- Starts a workflow as dispatch does, for clients that may not write tables: answers its id and name, or those of the workflow of another name that has the id, and then starts nothing.
-- dispatch_once(id uuid, name text, input json, tags jsonb, is_unique boolean, run_at timestamp with time zone, priority integer, queue text, timeout double precision DEFAULT NULL::double precision)
-- RETURNS TABLE(started_id uuid, started_name text)
#variable_conflict use_variable
BEGIN
    SELECT w.id, CASE w.status WHEN 'removing' THEN w.name || ' (being removed)' ELSE w.name END INTO started_id, started_name
    FROM "pgflow".workflows AS w WHERE w.id = id AND (w.name <> name OR w.status = 'removing');
    IF NOT FOUND THEN
        started_id := "pgflow".dispatch(name, input, tags, id, is_unique, run_at, priority, queue, make_interval(secs => timeout));
        started_name := name;
    END IF;
    RETURN NEXT;
END


-- A location as people write it: display_location('2,a10.1') is {2, 10.1}.
-- display_location(location text)
-- RETURNS text
SELECT '{' || replace(regexp_replace(location, '[a-z]', '', 'g'), ',', ', ') || '}'


-- Gives up a signal that was set aside; returns its id. An error when it is not set aside. The reason and the actor go into the table audit.
-- drop_signal(signal_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS uuid
#variable_conflict use_variable
BEGIN
    PERFORM "pgflow".dead_signal(signal_id, 'drop_signal');
    UPDATE "pgflow".signals AS s SET problem = NULL, dropped_at = now() WHERE s.id = signal_id;
    PERFORM "pgflow".write_audit('drop', s.workflow_id, s.id::text, reason, actor, jsonb_build_object('name', s.name))
    FROM "pgflow".signals AS s WHERE s.id = signal_id;
    RETURN signal_id;
END


-- Ends a workflow as cancelled whose row in runs the caller has locked: who waits for it is told, its children are asked to cancel.
-- end_cancelled(workflow_id uuid, error json)
-- RETURNS void
#variable_conflict use_variable
DECLARE
    gone record;
    parent uuid;
    heirs uuid[];
BEGIN
    -- The run is locked. What is kept of the workflow comes first, since its end is entered in ends as the run goes; then those who are
    -- told. Nothing that its worker still sends takes effect without the run's row.
    UPDATE "pgflow".workflows AS w SET status = 'cancelled', error = error, completed_at = now() WHERE w.id = workflow_id
    RETURNING w.parent_id INTO parent;
    DELETE FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id
    RETURNING r.waiters, coalesce(r.worker_id, r.last_worker, 0) AS owner INTO gone;
    WITH told AS (
        INSERT INTO "pgflow".requests (workflow_id, kind)
        SELECT parent, 'child' WHERE parent IS NOT NULL
        UNION
        SELECT waiter.id, 'child' FROM unnest(gone.waiters) AS waiter (id)
        UNION ALL
        SELECT w.id, 'cancel' FROM "pgflow".workflows AS w WHERE w.parent_id = workflow_id AND NOT w.detached AND w.status IS NULL
        RETURNING requests.workflow_id
    )
    SELECT array_agg(told.workflow_id) INTO heirs FROM told;
    UPDATE "pgflow".signals AS s SET dropped_at = now()
    WHERE s.workflow_id = workflow_id AND s.number IS NOT NULL AND s.consumed_at IS NULL AND s.dropped_at IS NULL;
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_done_b0e190599d32269b', workflow_id::text);
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', owners.owner::text)
        FROM (
            SELECT gone.owner WHERE gone.owner <> 0
            UNION
            SELECT coalesce(r.worker_id, r.last_worker, 0) FROM "pgflow".runs AS r WHERE r.workflow_id = ANY (heirs)
        ) AS owners;
    END IF;
END


-- Ends a workflow, whose row in runs the caller has locked and that no worker has ever had, as failed by its deadline: who waits for it is told.
-- end_timed_out(workflow_id uuid, after double precision)
-- RETURNS void
#variable_conflict use_variable
DECLARE
    parent uuid;
    waiters uuid[];
    heirs uuid[];
BEGIN
    -- The run is locked. What is kept of the workflow comes first, since runs gets from there what it failed with; then those who are told.
    UPDATE "pgflow".workflows AS w SET
        status = 'failed', completed_at = now(),
        error = format('{"type":"WorkflowTimeout","message":"no worker has taken it within %s s","timeout":%s}', after, after)::json
    WHERE w.id = workflow_id
    RETURNING w.parent_id INTO parent;
    UPDATE "pgflow".runs AS r SET
        status = 'failed', wake_at = NULL, pause_requested = false, deadline = NULL, timed_out = after,
        unique_key = NULL, freed_key = r.unique_key
    WHERE r.workflow_id = workflow_id
    RETURNING r.waiters INTO waiters;
    WITH told AS (
        INSERT INTO "pgflow".requests (workflow_id, kind)
        SELECT parent, 'child' WHERE parent IS NOT NULL
        UNION
        SELECT waiter.id, 'child' FROM unnest(waiters) AS waiter (id)
        RETURNING requests.workflow_id
    )
    SELECT array_agg(told.workflow_id) INTO heirs FROM told;
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_done_b0e190599d32269b', workflow_id::text);
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', owners.owner::text)
        FROM (SELECT DISTINCT coalesce(r.worker_id, r.last_worker, 0) FROM "pgflow".runs AS r WHERE r.workflow_id = ANY (heirs)) AS owners (owner);
    END IF;
END


-- The type that an error names, at most 200 characters; null where it cannot be read.
-- error_type(error json)
-- RETURNS text
BEGIN
    RETURN left(error->>'type', 200);
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN NULL;  -- it holds what no text can
END


-- The oldest live workflow of a name whose tags contain these, else the oldest failed one; null when there is none.
-- find_live(workflow_name text, tags jsonb)
-- RETURNS uuid
SELECT w.id
    FROM "pgflow".workflows AS w
    JOIN "pgflow".runs AS r ON r.workflow_id = w.id
    WHERE w.name = workflow_name AND w.tags @> find_live.tags AND (find_live.tags = '{}' OR w.tags <> '{}')
    ORDER BY r.status = 'failed', w.created_at, w.id
    LIMIT 1


-- Removes the row in ends of a workflow that is to go on though it had ended: to be called by whoever gives it a run again, in that transaction.
-- forget_end(workflow_id uuid)
-- RETURNS void
DELETE FROM "pgflow".ends AS e USING "pgflow".workflows AS w
    WHERE w.id = $1 AND e.ended_at = coalesce(w.completed_at, w.created_at) AND e.workflow_id = w.id


-- Trigger: removes the rows in ends of workflows that are removed.
-- forget_ends()
-- RETURNS trigger
BEGIN
    DELETE FROM "pgflow".ends AS e USING gone AS g
    WHERE e.ended_at = coalesce(g.completed_at, g.created_at) AND e.workflow_id = g.id;
    RETURN NULL;
END


-- Starts a new workflow from a copy of a workflow's history before a location (in stored form) and returns its id. The reason and the actor go into the table audit.
-- fork(workflow_id uuid, before text, id uuid DEFAULT NULL::uuid, queue text DEFAULT NULL::text, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS uuid
#variable_conflict use_variable
DECLARE
    new_id uuid := coalesce(id, "pgflow".uuid7());
    new_queue text;
    cut int;  -- results up to this place in the order of completion are copied; null: all
BEGIN
    IF queue = '' OR length(queue) > 200 OR queue ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'fork: queue=%: expected a name of 1 to 200 printable characters', quote_literal(left(queue, 300))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM "pgflow".must_exist(workflow_id, 'fork');
    IF EXISTS (SELECT FROM "pgflow".workflows AS w WHERE w.id = new_id AND w.forked_from = workflow_id) THEN
        RETURN new_id;  -- asked for twice: done once
    ELSIF EXISTS (SELECT FROM "pgflow".workflows AS w WHERE w.id = new_id) THEN
        RAISE EXCEPTION 'fork: the id % belongs to a workflow already', new_id USING ERRCODE = 'unique_violation', HINT = 'Choose another id.';
    END IF;
    -- History must not change while it is copied.
    PERFORM FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    -- Nor may it be removed meanwhile. If it has been, there is no such workflow.
    PERFORM FROM "pgflow".workflows AS w WHERE w.id = workflow_id FOR KEY SHARE;
    PERFORM "pgflow".must_exist(workflow_id, 'fork');
    cut := "pgflow".copy_history(workflow_id, before, new_id, 'fork');
    INSERT INTO "pgflow".workflows (id, name, tags, tags_given, input, seed, state, forked_from, created_at, timeout, cancellations)
    SELECT new_id, w.name, w.tags, w.tags_given, w.input, coalesce(w.seed, w.id), w.state, w.id, w.created_at, w.timeout,
        (SELECT array_agg(c ORDER BY c) FROM unnest(w.cancellations) AS c WHERE cut IS NULL OR c <= cut)
    FROM "pgflow".workflows AS w WHERE w.id = workflow_id;
    IF EXISTS (
        SELECT FROM "pgflow".events AS c
        WHERE c.workflow_id = new_id AND c.kind = 'child_workflow' AND c.status = 'completed'
          AND NOT EXISTS (
              SELECT FROM "pgflow".events AS o
              WHERE o.workflow_id = new_id AND o.kind = 'child_output' AND o.status <> 'pending' AND o.input->>'id' = c.output->>'id')
    ) THEN
        RAISE EXCEPTION 'fork: before % the workflow % had dispatched a child whose output is not recorded yet; a fork would share it',
            "pgflow".display_location(before), workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fork before the child was dispatched, or after its output was recorded.';
    END IF;
    -- It may await them once more.
    INSERT INTO "pgflow".finders (workflow_id, finder_id, location)
    SELECT (e.output->>'id')::uuid, new_id, e.location
    FROM "pgflow".events AS e WHERE e.workflow_id = new_id AND e.kind = 'child_workflow' AND e.status = 'completed'
    ON CONFLICT DO NOTHING;
    new_queue := coalesce(queue, (SELECT r.queue FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id), 'default');
    INSERT INTO "pgflow".runs (workflow_id, name, queue, status, wake_at, epoch, created_at, deadline, timed_out)
    SELECT new_id, w.name, new_queue, 'pending', now(), 1, w.created_at,
        -- What was cancelled before the place goes on with that, and has no deadline any more.
        CASE WHEN w.cancellations IS NULL THEN now() + make_interval(secs => w.timeout) END,
        CASE WHEN w.cancellations IS NOT NULL THEN (SELECT r.timed_out FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id) END
    FROM "pgflow".workflows AS w WHERE w.id = new_id;
    PERFORM "pgflow".hint_at_deadline(w.timeout) FROM "pgflow".workflows AS w WHERE w.id = new_id;
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_wake_b0e190599d32269b', new_queue);
    END IF;
    PERFORM "pgflow".write_audit('fork', workflow_id, NULL, reason, actor, jsonb_build_object(
        'new_id', new_id, 'before', "pgflow".display_location(before), 'queue', new_queue));
    RETURN new_id;
END


-- Tells workers that a deadline has been set, so many seconds from now, where hints can be sent.
-- hint_at_deadline(after double precision)
-- RETURNS void
BEGIN
    -- Deadlines that are further away than this are found by the looks that workers have between two hints.
    IF after <= 600 AND "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', '+' || after);
    END IF;
END


-- Whether a workflow may still await another one that it started, or found, at a location: it is live or failed, and that step is in its active history or not recorded yet.
-- may_await(holder uuid, at text, child uuid)
-- RETURNS boolean
#variable_conflict use_variable
DECLARE
    step record;
BEGIN
    IF NOT EXISTS (SELECT FROM "pgflow".runs AS r WHERE r.workflow_id = holder) THEN
        RETURN false;
    END IF;
    IF coalesce(at, '') = '' THEN
        RETURN true;  -- nobody noted where
    END IF;
    SELECT e.status, CASE WHEN e.kind = 'child_workflow' THEN e.output->>'id' END AS found INTO step
    FROM "pgflow".events AS e WHERE e.workflow_id = holder AND e.location = at COLLATE "C";
    IF FOUND THEN
        RETURN step.status = 'pending' OR (step.status = 'completed' AND step.found IS NOT DISTINCT FROM child::text);
    END IF;
    -- Either it has not been recorded yet, or it has been forgotten with its turn of a loop. The turn stands behind the loop in the location.
    RETURN NOT EXISTS (
        SELECT
        FROM generate_series(1, cardinality(string_to_array(at, ',')) - 2) AS depth
        JOIN "pgflow".events AS e
            ON e.workflow_id = holder AND e.location = array_to_string((string_to_array(at, ','))[1:depth], ',') COLLATE "C"
        WHERE e.kind = 'loop' AND (
            e.status <> 'pending'
            OR e.loop_progress >= regexp_replace(split_part((string_to_array(at, ','))[depth + 1], '.', 1), '[a-z]', '', 'g')::numeric));
END


-- Whether functions send notifications: not where these are forbidden, nor while the setting pgflow.hints is off (for two-phase commits): then polling finds what they would have told of.
-- may_hint()
-- RETURNS boolean
SELECT coalesce(lower(current_setting('pgflow.hints', true)), '') NOT IN ('off', 'false', 'no', '0')
        AND coalesce(has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE'), false)


-- An error when there is no such workflow.
-- must_exist(workflow_id uuid, what text)
-- RETURNS void
#variable_conflict use_variable
BEGIN
    IF NOT EXISTS (SELECT FROM "pgflow".workflows AS w WHERE w.id = workflow_id AND w.status IS DISTINCT FROM 'removing') THEN
        RAISE EXCEPTION '%: there is no workflow %', what, coalesce(workflow_id::text, 'null') USING ERRCODE = 'no_data_found';
    END IF;
END


-- Trigger: enters into finders those who wait for a workflow that they found, where code of before has noted them in runs.waiters alone.
-- note_finders()
-- RETURNS trigger
BEGIN
    INSERT INTO "pgflow".finders (workflow_id, finder_id, location)
    SELECT NEW.workflow_id, found.id, ''
    FROM (SELECT unnest(NEW.waiters) EXCEPT SELECT unnest(OLD.waiters)) AS found (id)
    WHERE NOT EXISTS (SELECT FROM "pgflow".finders AS f WHERE f.workflow_id = NEW.workflow_id AND f.finder_id = found.id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END


-- Cancels, pauses, resumes, retries or terminates up to 1000 workflows: a row for each, with why it was refused, null if it was done. With dry_run nothing is done. The reason and the actor go into the table audit, a row for each that was changed.
-- operate_many(operation text, workflow_ids uuid[], reason text DEFAULT NULL::text, actor text DEFAULT NULL::text, dry_run boolean DEFAULT false)
-- RETURNS TABLE(id uuid, refused text)
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
                    refused := CASE WHEN NOT "pgflow".cancel(id, reason, actor) THEN 'it has ended already' END;
                WHEN 'pause' THEN
                    refused := CASE WHEN NOT "pgflow".pause(id, reason, actor) THEN 'it has ended already' END;
                WHEN 'resume' THEN
                    refused := CASE WHEN NOT "pgflow".resume(id, reason, actor) THEN 'it is not paused' END;
                WHEN 'terminate' THEN
                    refused := CASE WHEN NOT "pgflow".terminate(id, reason, actor) THEN 'it has ended already' END;
                ELSE
                    PERFORM "pgflow".retry(id, reason, actor);
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


-- Cancels the workflows whose deadline has passed, and ends those of them that no worker has ever had (ended): failed, or cancelled if that was asked for before. A row for each; error is what it failed with. Workers call it in time, and whoever may operate may call it.
-- pass_deadlines(most integer DEFAULT 100)
-- RETURNS TABLE(id uuid, name text, after double precision, ended boolean, error text)
#variable_conflict use_column
DECLARE
    ids uuid[];
    run record;
BEGIN
    -- What somebody else has locked is left for the next time: nobody waits here.
    SELECT array_agg(due.workflow_id) INTO ids FROM (
        SELECT r.workflow_id FROM "pgflow".runs AS r
        WHERE r.deadline <= now() ORDER BY r.deadline LIMIT most
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS due;
    -- By a statement of its own, whose snapshot is younger than the locks.
    FOR run IN
        SELECT r.workflow_id, w.name, r.status, r.epoch, r.queue, r.worker_id, coalesce(w.timeout, 0) AS after, (
            r.cancel_requested OR cardinality(w.cancellations) > 0
            OR EXISTS (SELECT FROM "pgflow".requests AS q WHERE q.workflow_id = r.workflow_id AND q.kind = 'cancel')
        ) AS cancelled
        FROM "pgflow".runs AS r
        LEFT JOIN "pgflow".workflows AS w ON w.id = r.workflow_id
        WHERE r.workflow_id = ANY (ids)
        ORDER BY r.workflow_id
    LOOP
        ended := run.epoch = 0 AND run.status IN ('pending', 'paused');
        IF ended AND run.cancelled THEN
            PERFORM "pgflow".end_cancelled(run.workflow_id, NULL);
        ELSIF ended THEN
            PERFORM "pgflow".end_timed_out(run.workflow_id, run.after);
        ELSIF run.status = 'failed' OR run.cancelled THEN
            -- A retry sets another deadline; what is cancelled is perhaps compensating, and keeps the time that it needs.
            UPDATE "pgflow".runs AS r SET deadline = NULL WHERE r.workflow_id = run.workflow_id;
            CONTINUE;
        ELSE
            -- As a request to cancel that is delivered (mail_deliver.sql): it wakes who sleeps, and resumes who is paused.
            UPDATE "pgflow".runs AS r SET
                deadline = NULL, timed_out = run.after, cancel_requested = true, pause_requested = false,
                status = CASE WHEN r.status IN ('sleeping', 'paused') THEN 'pending' ELSE r.status END,
                wake_at = CASE WHEN r.status <> 'running' THEN now() END
            WHERE r.workflow_id = run.workflow_id;
            IF "pgflow".may_hint() THEN
                IF run.status = 'running' THEN
                    PERFORM pg_notify('pgflow_mail_b0e190599d32269b', run.worker_id::text);
                ELSE
                    PERFORM pg_notify('pgflow_wake_b0e190599d32269b', run.queue);
                END IF;
            END IF;
        END IF;
        id := run.workflow_id;
        name := run.name;
        after := run.after;
        error := CASE WHEN ended AND NOT run.cancelled THEN (
            SELECT w.error::text FROM "pgflow".workflows AS w WHERE w.id = run.workflow_id) END;
        RETURN NEXT;
    END LOOP;
END


-- Pauses a workflow: nobody goes on with it until it is resumed. One that runs is paused when its activities in flight have ended. False when it has ended. The reason and the actor go into the table audit.
-- pause(workflow_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
DECLARE
    owner bigint;
    already boolean;
BEGIN
    PERFORM "pgflow".must_exist(workflow_id, 'pause');
    SELECT r.status = 'paused' OR r.pause_requested INTO already
    FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    -- A cancellation that was asked for before is told to the code first.
    UPDATE "pgflow".runs AS r SET
        pause_requested = r.status = 'running' OR (r.status <> 'paused' AND r.cancel_requested),
        status = CASE WHEN r.status = 'running' OR r.cancel_requested THEN r.status ELSE 'paused' END,
        last_worker = NULL
    WHERE r.workflow_id = workflow_id AND r.status IN ('pending', 'sleeping', 'running', 'paused')
    RETURNING coalesce(r.worker_id, 0) INTO owner;
    IF owner > 0 AND "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', owner::text);
    END IF;
    IF owner IS NOT NULL AND NOT already THEN
        PERFORM "pgflow".write_audit('pause', workflow_id, NULL, reason, actor);
    END IF;
    RETURN owner IS NOT NULL;
END


-- Looks through some of what ended at least so long ago, the first first, and removes up to `most` of those that match and that nobody may still await. A row for each: null, or why it stays; with it the place at which to go on, to be given as after and after_id (a row without an id has nothing else). No row: that was all. The reason and the actor go into the table audit.
-- prune(older_than interval, statuses text[] DEFAULT '{completed,cancelled}'::text[], name text DEFAULT NULL::text, queue text DEFAULT NULL::text, tags jsonb DEFAULT NULL::jsonb, parent_id uuid DEFAULT NULL::uuid, dry_run boolean DEFAULT false, most integer DEFAULT 100, after timestamp with time zone DEFAULT NULL::timestamp with time zone, after_id uuid DEFAULT NULL::uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS TABLE(at timestamp with time zone, last uuid, id uuid, stays text)
#variable_conflict use_variable
DECLARE
    look constant int := 5000;  -- at so many workflows, at most
    filters text := concat(
        CASE WHEN name IS NOT NULL THEN ' AND rtrim(o.name, chr(31)) = $2' END, CASE WHEN queue IS NOT NULL THEN ' AND o.queue = $3' END);
    matching text := concat(
        CASE WHEN tags IS NOT NULL THEN ' AND w.tags @> $4' END, CASE WHEN parent_id IS NOT NULL THEN ' AND w.parent_id = $5' END);
    kinds text[] := array_append(array_remove(statuses, 'failed'), 'removing');  -- what others have begun with is gone on with
    sources text[];
    chosen uuid[];
BEGIN
    IF older_than IS NULL OR older_than < interval '0' THEN
        RAISE EXCEPTION 'prune: older_than is %, expected an interval of 0 or more', coalesce(older_than::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF most IS NULL OR most NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'prune: most is %, expected 1 to 1000', coalesce(most::text, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'All of them go in one transaction. Call it again for more.';
    END IF;
    IF coalesce(cardinality(statuses), 0) = 0 OR NOT statuses <@ ARRAY['completed', 'failed', 'cancelled'] THEN
        RAISE EXCEPTION 'prune: statuses are %, expected completed, failed or cancelled, one or several', coalesce(statuses::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF cardinality(kinds) > 0 THEN
        sources := ARRAY[
            '(SELECT o.workflow_id AS id, o.ended_at AS at FROM "pgflow".ends AS o WHERE o.ended_at <= $1 AND o.status = ANY ($9)' || replace(filters, 'rtrim(o.name, chr(31))', 'o.name')
            || CASE WHEN after IS NOT NULL THEN ' AND (o.ended_at, o.workflow_id) > ($6, $7)' ELSE '' END
            || ' ORDER BY o.ended_at, o.workflow_id LIMIT $8)'];
    END IF;
    IF 'failed' = ANY (statuses) THEN
        sources := sources || (
            '(SELECT o.workflow_id AS id, o.failed_at AS at FROM "pgflow".runs AS o WHERE o.failed_at <= $1 AND o.status = ''failed''' || filters
            || CASE WHEN after IS NOT NULL THEN ' AND (o.failed_at, o.workflow_id) > ($6, $7)' ELSE '' END
            || ' ORDER BY o.failed_at, o.workflow_id LIMIT $8)');
    END IF;
    -- Planned anew each time, for what is given.
    EXECUTE 'WITH looked AS MATERIALIZED (SELECT s.id, s.at FROM (' || array_to_string(sources, ' UNION ALL ') || ') AS s ORDER BY s.at, s.id LIMIT $8), '
        'chosen AS MATERIALIZED ('
        'SELECT looked.id, looked.at FROM looked '
        'CROSS JOIN LATERAL (SELECT FROM "pgflow".workflows AS w WHERE w.id = looked.id' || matching || ' OFFSET 0) AS matching '
        'ORDER BY looked.at, looked.id LIMIT $10) '
        'SELECT l.at, l.id, ARRAY(SELECT chosen.id FROM chosen) FROM ('
        'SELECT chosen.at, chosen.id FROM chosen WHERE (SELECT count(*) FROM chosen) = $10 '
        'UNION ALL SELECT looked.at, looked.id FROM looked WHERE (SELECT count(*) FROM chosen) < $10'
        ') AS l ORDER BY l.at DESC, l.id DESC LIMIT 1'
    INTO at, last, chosen
    USING now() - older_than, name, queue, tags, parent_id, after, after_id, look, kinds, most;
    IF cardinality(chosen) > 0 THEN
        RETURN QUERY
        SELECT at, last, r.id, r.stays FROM "pgflow".remove_workflows(chosen, older_than, dry_run, true, reason, actor) AS r;
    ELSIF last IS NOT NULL THEN
        RETURN NEXT;
    END IF;
END


-- Trigger: writes a row into ends for each workflow whose run is gone because it has ended, whoever ended it.
-- record_ends()
-- RETURNS trigger
BEGIN
    -- A run also goes when a dispatch takes back what it has just inserted: then nothing has ended. What a rewind needs is kept as well.
    INSERT INTO "pgflow".ends (workflow_id, name, status, queue, priority, created_at, ended_at, unique_key, waiters, epoch)
    SELECT g.workflow_id, rtrim(g.name, chr(31)), w.status, g.queue, g.priority, w.created_at, coalesce(w.completed_at, w.created_at),
        g.unique_key, g.waiters, CASE WHEN g.epoch >= 16777216 THEN g.epoch END
    FROM gone AS g
    CROSS JOIN LATERAL (
        SELECT o.status, o.created_at, o.completed_at FROM "pgflow".workflows AS o WHERE o.id = g.workflow_id OFFSET 0
    ) AS w
    WHERE w.status IN ('completed', 'cancelled');
    RETURN NULL;
END


-- Trigger: keeps with the run of a failed workflow when it failed and the type of its error.
-- record_failure()
-- RETURNS trigger
#variable_conflict use_variable
DECLARE
    workflow_id uuid := NEW.workflow_id;
    error json;
    at timestamptz;
BEGIN
    SELECT w.error, w.completed_at INTO error, at FROM "pgflow".workflows AS w WHERE w.id = workflow_id;
    UPDATE "pgflow".runs AS r SET error_type = "pgflow".error_type(error), failed_at = coalesce(at, now())
    WHERE r.workflow_id = workflow_id;
    RETURN NULL;
END


-- Delivers a signal that was set aside anew, at the end of its receiver's mailbox, with another body if one is given; returns its id. An error when it is not set aside, or its receiver has ended. The reason and the actor go into the table audit.
-- redeliver(signal_id uuid, body json DEFAULT NULL::json, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS uuid
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
    receiver := "pgflow".dead_signal(signal_id, 'redeliver');
    SELECT w.status INTO final FROM "pgflow".workflows AS w WHERE w.id = receiver;
    IF NOT FOUND OR final IN ('completed', 'cancelled') THEN
        RAISE EXCEPTION 'redeliver: the workflow % is %, nothing was delivered', receiver, coalesce(final, 'no longer there')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Drop the signal, or send what it says to another workflow.';
    END IF;
    -- As if it had just been sent: it gets the next number of the mailbox, whatever the workflow has taken meanwhile.
    UPDATE "pgflow".signals AS s SET
        arrival = DEFAULT, number = NULL, dropped_at = NULL, problem = NULL, body = coalesce(redeliver.body, s.body)
    WHERE s.id = signal_id;
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', coalesce(r.worker_id, r.last_worker, 0)::text)
        FROM "pgflow".runs AS r WHERE r.workflow_id = receiver;
    END IF;
    PERFORM "pgflow".write_audit('redeliver', s.workflow_id, s.id::text, reason, actor, jsonb_build_object('name', s.name, 'body_replaced', redeliver.body IS NOT NULL))
    FROM "pgflow".signals AS s WHERE s.id = signal_id;
    RETURN signal_id;
END


-- Removes those of these workflows that ended at least so long ago and that nobody may still await, with all that is their own. A row for each: null, or why it stays: it may be awaited, it is being removed piece by piece (call this again), or it is busy (locked, live, young or not there).
-- remove_workflows(workflow_ids uuid[], older_than interval, dry_run boolean DEFAULT false, audited boolean DEFAULT false, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS TABLE(id uuid, stays text)
#variable_conflict use_variable
DECLARE
    before timestamptz := now() - older_than;
    failed uuid[];
    ripe uuid[];
    held uuid[];
    gone uuid[];
    later uuid[];
    large uuid;
    piece constant int := 5000;  -- rows of a workflow's history that go at once
    budget constant int := 20000;  -- and of all together
BEGIN
    IF EXISTS (SELECT FROM "pgflow".chores AS c WHERE c.name = 'finders') THEN
        RAISE EXCEPTION 'prune: it is not entered yet who has found which unique workflow before schema 0020; workers do that'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let a worker run, and try again in a while.';
    END IF;
    -- Runs first, then workflows, each in order. What somebody else has locked is left for another time: nobody waits.
    IF dry_run THEN
        SELECT array_agg(w.id) INTO ripe
        FROM "pgflow".workflows AS w
        WHERE w.id = ANY (workflow_ids) AND w.status IN ('completed', 'failed', 'cancelled', 'removing') AND w.completed_at <= before;
    ELSE
        SELECT array_agg(locked.workflow_id) INTO failed
        FROM (
            SELECT r.workflow_id FROM "pgflow".runs AS r
            WHERE r.workflow_id = ANY (workflow_ids) AND r.status = 'failed'
            ORDER BY r.workflow_id FOR UPDATE SKIP LOCKED
        ) AS locked;
        SELECT array_agg(locked.id) INTO ripe
        FROM (
            SELECT w.id FROM "pgflow".workflows AS w
            WHERE w.id = ANY (workflow_ids) AND w.completed_at <= before
              AND (w.status IN ('completed', 'cancelled') OR (w.status IN ('failed', 'removing') AND w.id = ANY (failed))
                   OR (w.status = 'removing' AND NOT EXISTS (SELECT FROM "pgflow".runs AS r WHERE r.workflow_id = w.id)))
            ORDER BY w.id FOR UPDATE SKIP LOCKED
        ) AS locked;
    END IF;
    -- From here on by what is known behind the locks. Who does not hold one of these by now never will.
    SELECT array_agg(w.id) INTO held
    FROM "pgflow".workflows AS w
    WHERE w.id = ANY (ripe) AND w.status <> 'removing' AND (
        (w.parent_id IS NOT NULL AND "pgflow".may_await(w.parent_id, w.parent_location, w.id))
        OR EXISTS (
            SELECT FROM "pgflow".finders AS f
            WHERE f.workflow_id = w.id AND "pgflow".may_await(f.finder_id, f.location, f.workflow_id)));
    SELECT array_agg(r.id) INTO gone FROM unnest(ripe) AS r (id) WHERE r.id <> ALL (coalesce(held, '{}'));
    IF NOT dry_run AND gone IS NOT NULL THEN
        -- Some at a time. One that has a long history goes in pieces: from the first on nobody sees it any more, but its id is taken until the last.
        SELECT array_agg(s.id) FILTER (WHERE s.size <= piece AND s.total <= budget),
               array_agg(s.id) FILTER (WHERE s.size > piece OR s.total > budget),
               (array_agg(s.id ORDER BY s.number) FILTER (WHERE s.size > piece))[1]
        INTO gone, later, large
        FROM (
            SELECT c.*, sum(c.size) FILTER (WHERE c.size <= piece) OVER (ORDER BY c.number) AS total
            FROM (
                SELECT g.id, g.number,
                    (SELECT count(*) FROM (SELECT FROM "pgflow".events AS e WHERE e.workflow_id = g.id LIMIT piece + 1) AS few)
                    + (SELECT count(*) FROM (SELECT FROM "pgflow".forgotten_events AS f WHERE f.workflow_id = g.id LIMIT piece + 1) AS few) AS size
                FROM unnest(gone) WITH ORDINALITY AS g (id, number) OFFSET 0
            ) AS c
        ) AS s;
        IF large IS NOT NULL THEN
            UPDATE "pgflow".workflows AS w SET status = 'removing' WHERE w.id = large AND w.status <> 'removing';
            UPDATE "pgflow".ends AS e SET status = 'removing'
            FROM "pgflow".workflows AS w
            WHERE w.id = large AND e.ended_at = coalesce(w.completed_at, w.created_at) AND e.workflow_id = large AND e.status <> 'removing';
            DELETE FROM "pgflow".forgotten_events AS f WHERE f.ctid = ANY (ARRAY(
                SELECT o.ctid FROM "pgflow".forgotten_events AS o WHERE o.workflow_id = large LIMIT piece));
            IF NOT FOUND THEN
                DELETE FROM "pgflow".events AS e WHERE e.ctid = ANY (ARRAY(
                    SELECT o.ctid FROM "pgflow".events AS o WHERE o.workflow_id = large LIMIT piece));
            END IF;
        END IF;
    END IF;
    IF NOT dry_run AND gone IS NOT NULL THEN
        -- A signal whose sender may not have recorded it yet, and would send it again, is found by its id then: it goes with those that
        -- were taken. (Only what nobody else has locked.)
        WITH mail AS MATERIALIZED (
            SELECT s.id, s.sender_id IS NOT NULL AND EXISTS (
                SELECT FROM "pgflow".runs AS r WHERE r.workflow_id = s.sender_id AND r.status <> 'sleeping') AS again
            FROM "pgflow".signals AS s WHERE s.workflow_id = ANY (gone)
            FOR UPDATE OF s SKIP LOCKED
        ),
        dropped AS (
            UPDATE "pgflow".signals AS s SET dropped_at = coalesce(s.dropped_at, s.consumed_at, now()), problem = NULL
            WHERE s.id = ANY (ARRAY(SELECT mail.id FROM mail WHERE mail.again))
        )
        DELETE FROM "pgflow".signals AS s WHERE s.id = ANY (ARRAY(SELECT mail.id FROM mail WHERE NOT mail.again));
        DELETE FROM "pgflow".requests AS q WHERE q.id = ANY (ARRAY(
            SELECT o.id FROM "pgflow".requests AS o WHERE o.workflow_id = ANY (gone) FOR UPDATE SKIP LOCKED));
        DELETE FROM "pgflow".finders AS f WHERE f.workflow_id = ANY (gone);
        DELETE FROM "pgflow".finders AS f WHERE f.finder_id = ANY (gone);
        DELETE FROM "pgflow".forgotten_events AS f WHERE f.workflow_id = ANY (gone);
        DELETE FROM "pgflow".events AS e WHERE e.workflow_id = ANY (gone);
        DELETE FROM "pgflow".runs AS r WHERE r.workflow_id = ANY (gone);
        DELETE FROM "pgflow".workflows AS w WHERE w.id = ANY (gone);
        IF audited THEN
            PERFORM "pgflow".write_audit('prune', g.id, NULL, reason, actor) FROM unnest(gone) AS g (id);
        END IF;
    END IF;
    RETURN QUERY
    SELECT given.id, CASE
        WHEN given.id = ANY (gone) THEN NULL
        WHEN given.id = ANY (held) THEN 'awaited'
        WHEN given.id = ANY (later) THEN 'removing'
        ELSE 'busy' END
    FROM unnest(workflow_ids) AS given (id);
END


-- Takes back what set_retention has set for a name: what its code says holds again, else what is set for *. False when nothing was set. The reason and the actor go into the table audit.
-- reset_retention(name text, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
BEGIN
    DELETE FROM "pgflow".retention AS r WHERE r.name = name AND r.set_by = 'operator';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM "pgflow".write_audit('retention', NULL, name, reason, actor, '{"reset": true}');
    RETURN true;
END


-- Lets a paused workflow go on. False when it is not paused. The reason and the actor go into the table audit.
-- resume(workflow_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
DECLARE
    resumed record;
BEGIN
    PERFORM "pgflow".must_exist(workflow_id, 'resume');
    UPDATE "pgflow".runs AS r SET
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
    IF "pgflow".may_hint() THEN
        -- Whoever runs it has perhaps not paused it yet, and goes on at once.
        IF resumed.worker_id IS NULL THEN
            PERFORM pg_notify('pgflow_wake_b0e190599d32269b', resumed.queue);
        ELSE
            PERFORM pg_notify('pgflow_mail_b0e190599d32269b', resumed.worker_id::text);
        END IF;
    END IF;
    PERFORM "pgflow".write_audit('resume', workflow_id, NULL, reason, actor);
    RETURN true;
END


-- How many seconds ended workflows of a name are kept (what: keep, or failed): the operator's for the name, else the code's, else the operator's for *; null, or infinity: for ever.
-- retained_for(name text, what text)
-- RETURNS double precision
SELECT CASE retained_for.what WHEN 'failed' THEN r.failed ELSE r.keep END
    FROM "pgflow".retention AS r
    WHERE r.name IN (rtrim(retained_for.name, chr(31)), '*') AND NOT (r.name = '*' AND r.set_by = 'code')
      AND CASE retained_for.what WHEN 'failed' THEN r.failed ELSE r.keep END IS NOT NULL
    ORDER BY r.name = '*', r.set_by = 'code'
    LIMIT 1


-- How long something is to be kept, in seconds: of an interval, or of forever; null of null.
-- retention_seconds(given text, what text)
-- RETURNS double precision
#variable_conflict use_variable
DECLARE
    found double precision;
BEGIN
    IF given IS NULL THEN
        RETURN NULL;
    ELSIF given = 'forever' THEN
        RETURN 'infinity';
    END IF;
    BEGIN
        found := extract(epoch FROM given::interval);
    EXCEPTION WHEN data_exception THEN
        found := NULL;
    END;
    IF found IS NULL OR found <= 0 THEN
        RAISE EXCEPTION 'retention: %=%: expected a duration above 0, such as 30 days, or forever', what, quote_literal(left(given, 100))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN found;
END


-- Runs a failed workflow again from its history: the steps whose failures left it get a new set of attempts, failed children are retried too. An error when it is not failed, or when its code had gone on from the failure. The reason and the actor go into the table audit.
-- retry(workflow_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS void
#variable_conflict use_variable
DECLARE
    all_ids uuid[];
    run record;
BEGIN
    PERFORM "pgflow".must_exist(workflow_id, 'retry');
    -- The workflow, and the failed children whose failures left it, and theirs.
    WITH RECURSIVE family AS (
        SELECT r.workflow_id AS id, r.reset FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id
        UNION
        SELECT child.workflow_id, child.reset
        FROM family
        JOIN "pgflow".events AS e ON e.workflow_id = family.id AND e.location = ANY (family.reset) AND e.kind = 'child_output'
            AND e.status = 'failed'
        JOIN "pgflow".runs AS child ON child.workflow_id = (e.input->>'id')::uuid AND child.status = 'failed'
    )
    SELECT array_agg(family.id) INTO all_ids FROM family;
    PERFORM FROM "pgflow".runs AS r WHERE r.workflow_id = ANY (all_ids) ORDER BY r.workflow_id FOR NO KEY UPDATE;
    PERFORM "pgflow".must_exist(workflow_id, 'retry');  -- somebody may just have removed it
    IF NOT EXISTS (SELECT FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id AND r.status = 'failed') THEN
        RAISE EXCEPTION 'retry: the workflow % is %, expected a failed one', workflow_id,
            (SELECT coalesce(w.status, r.status) FROM "pgflow".workflows AS w
             LEFT JOIN "pgflow".runs AS r ON r.workflow_id = w.id WHERE w.id = workflow_id)
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    FOR run IN
        SELECT r.* FROM "pgflow".runs AS r WHERE r.workflow_id = ANY (all_ids) AND r.status = 'failed' ORDER BY r.workflow_id
    LOOP
        IF run.fork_before IS NOT NULL THEN
            RAISE EXCEPTION 'retry: the code of workflow % had gone on from the failure of the step at % before it failed; running '
                'that step again would bring code and history apart', run.workflow_id, "pgflow".display_location(run.fork_before)
                USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = format('Rewind it: rewind(%1$s, before=%2$s); or fork it: fork(%1$s, before=%2$s).', run.workflow_id, "pgflow".display_location(run.fork_before));
        END IF;
        IF run.freed_key IS NOT NULL AND EXISTS (SELECT FROM "pgflow".runs AS r WHERE r.unique_key = run.freed_key) THEN
            RAISE EXCEPTION 'retry: workflow % is unique, and meanwhile the live workflow % has its name and tags', run.workflow_id,
                (SELECT r.workflow_id FROM "pgflow".runs AS r WHERE r.unique_key = run.freed_key)
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let that one end first.';
        END IF;
        IF run.timed_out IS NOT NULL THEN
            -- The cancellation that the deadline brought is taken back with the steps that it cancelled, if these run again.
            UPDATE "pgflow".workflows AS w SET cancellations = (
                SELECT array_agg(c ORDER BY c) FROM unnest(w.cancellations) AS c
                WHERE NOT EXISTS (
                    SELECT FROM "pgflow".events AS e
                    WHERE e.workflow_id = run.workflow_id AND e.location = ANY (run.reset) AND e.status = 'cancelled' AND e.seq = c))
            WHERE w.id = run.workflow_id;
        END IF;
        -- The steps themselves, what a timeout among them had cancelled, and the loops around them.
        UPDATE "pgflow".events AS e SET
            status = 'pending', attempts = 0, seq = NULL, completed_at = NULL, output = NULL,
            wake_at = CASE WHEN e.kind IN ('sleep', 'listen') OR (e.kind = 'timeout' AND e.status <> 'failed') THEN e.wake_at END
        WHERE e.workflow_id = run.workflow_id AND e.status <> 'completed' AND (
            e.location = ANY (run.reset)
            OR (e.status = 'cancelled' AND e.seq IN (
                SELECT t.seq FROM "pgflow".events AS t
                WHERE t.workflow_id = run.workflow_id AND t.location = ANY (run.reset) AND t.kind = 'timeout' AND t.status = 'failed'))
            OR (e.kind = 'loop' AND EXISTS (
                SELECT FROM unnest(run.reset) AS inner_step (location) WHERE starts_with(inner_step.location, e.location || ','))));
        UPDATE "pgflow".workflows AS w SET status = NULL, error = NULL, completed_at = NULL WHERE w.id = run.workflow_id;
        UPDATE "pgflow".runs AS r SET
            status = 'pending', wake_at = now(), epoch = r.epoch + 1, reset = NULL, unique_key = r.freed_key, freed_key = NULL,
            cancel_requested = false, pause_requested = false,
            -- What stays cancelled goes on with that, and has no deadline any more.
            timed_out = (SELECT r.timed_out FROM "pgflow".workflows AS w WHERE w.id = r.workflow_id AND cardinality(w.cancellations) > 0),
            deadline = (
                SELECT now() + make_interval(secs => w.timeout) FROM "pgflow".workflows AS w
                WHERE w.id = r.workflow_id AND coalesce(cardinality(w.cancellations), 0) = 0)
        WHERE r.workflow_id = run.workflow_id;
        PERFORM "pgflow".hint_at_deadline(w.timeout) FROM "pgflow".workflows AS w WHERE w.id = run.workflow_id;
        IF "pgflow".may_hint() THEN
            PERFORM pg_notify('pgflow_wake_b0e190599d32269b', run.queue);
        END IF;
    END LOOP;
    PERFORM "pgflow".write_audit('retry', workflow_id, NULL, reason, actor);
END


-- Puts the signals that a rewind has undone the taking of, and those that the workflow's end dropped, back into its mailbox in their order. Returns the mailbox's last number, and how many came back.
-- return_signals(workflow_id uuid, number integer, ended_at timestamp with time zone, mailbox bigint, before text, OUT last bigint, OUT returned integer)
-- RETURNS record
#variable_conflict use_variable
DECLARE
    first bigint := greatest(mailbox, (SELECT max(s.number) FROM "pgflow".signals AS s WHERE s.workflow_id = workflow_id), 0);
    counted bigint;
BEGIN
    -- All that waits from now on is numbered anew, in the order in which it came. What a listen took is in the listen's output: its own row may
    -- be gone, and then it came after whatever had been taken before it. Of an ended workflow (ended_at) also what its end has dropped, which its
    -- time tells from what a person dropped, and what nobody has delivered: a delivery that began before this would drop that.
    WITH taken AS MATERIALIZED (
        SELECT (v.signal->>'id')::uuid AS id, v.signal->>'name' AS name, v.signal->'body' AS body, f.seq, v.place
        FROM "pgflow".forgotten_events AS f
        CROSS JOIN LATERAL json_array_elements(CASE json_typeof(f.output) WHEN 'array' THEN f.output WHEN 'object' THEN json_build_array(f.output)
            ELSE '[]' END) WITH ORDINALITY AS v (signal, place)
        WHERE f.workflow_id = workflow_id AND f.rewind = number AND f.kind = 'listen' AND f.status = 'completed'
    ),
    placed AS (
        SELECT t.id, t.name, t.body, t.seq, t.place, s.id IS NULL AS gone,
            coalesce(s.number, max(s.number) OVER (ORDER BY t.seq, t.place ROWS UNBOUNDED PRECEDING), 0) AS came
        FROM taken AS t LEFT JOIN "pgflow".signals AS s ON s.id = t.id AND s.workflow_id = workflow_id
    ),
    waiting AS (
        SELECT p.id, p.name, p.body, p.came, p.seq, p.place, p.gone, NULL::bigint AS arrival, true AS comes_back FROM placed AS p
        UNION ALL  -- taken in turns of loops that have been trimmed
        SELECT s.id, NULL, NULL, s.number, NULL, NULL, false, s.arrival, true
        FROM "pgflow".signals AS s
        WHERE s.workflow_id = workflow_id AND s.consumed_at IS NOT NULL AND s.number IS NOT NULL AND s.location >= before COLLATE "C"
          AND NOT EXISTS (SELECT FROM placed AS p WHERE p.id = s.id)
        UNION ALL
        SELECT s.id, NULL, NULL, coalesce(s.number, 9223372036854775807), NULL, NULL, false, s.arrival, s.dropped_at IS NOT NULL
        FROM "pgflow".signals AS s
        WHERE s.workflow_id = workflow_id AND s.consumed_at IS NULL AND s.problem IS NULL
          AND CASE
              WHEN s.dropped_at IS NOT NULL THEN ended_at IS NOT NULL AND (s.dropped_at = ended_at OR s.number IS NULL)
              WHEN s.number IS NULL THEN ended_at IS NOT NULL
              ELSE true END
    ),
    ordered AS MATERIALIZED (
        SELECT w.id, w.name, w.body, w.gone, w.comes_back, first + row_number() OVER (ORDER BY w.came, w.seq, w.place, w.arrival) AS becomes
        FROM waiting AS w
    ),
    there AS (
        UPDATE "pgflow".signals AS s SET number = o.becomes, consumed_at = NULL, location = NULL, dropped_at = NULL
        FROM ordered AS o WHERE s.id = o.id AND NOT o.gone
    ),
    rebuilt AS (
        INSERT INTO "pgflow".signals (id, workflow_id, name, body, number)
        SELECT o.id, workflow_id, o.name, o.body, o.becomes FROM ordered AS o WHERE o.gone
    )
    SELECT count(*), count(*) FILTER (WHERE o.comes_back) INTO counted, returned FROM ordered AS o;
    last := first + counted;
END


-- Lets a workflow that is paused or failed, or has ended, run again under its own id from before a location (in stored form). What came after goes to forgotten history, signals that were taken there return; children started there are left or cancelled. With dry_run nothing is done; asked for twice under one request, it is done once. Returns what was undone. The reason and the actor go into the table audit.
-- rewind(workflow_id uuid, before text, children text DEFAULT 'leave'::text, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text, dry_run boolean DEFAULT false, request uuid DEFAULT NULL::uuid)
-- RETURNS jsonb
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
    PERFORM "pgflow".must_exist(workflow_id, 'rewind');
    IF NOT EXISTS (
        SELECT FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) AND a.attname = 'rewind'
        JOIN pg_type AS t ON t.typrelid = i.indrelid
        WHERE t.oid = pg_typeof(NULL::"pgflow".forgotten_events) AND i.indisprimary)
    THEN
        RAISE EXCEPTION 'rewind: the key of forgotten history has not been built anew since the schema was upgraded'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Upgrade again: pgflow db upgrade goes on with it.';
    END IF;
    -- The run first, then what is kept of the workflow. One that has ended has no run: two who rewind it meet at its other row.
    SELECT r.* INTO run FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    ended := NOT FOUND;
    SELECT w.* INTO flow FROM "pgflow".workflows AS w WHERE w.id = workflow_id FOR NO KEY UPDATE;
    PERFORM "pgflow".must_exist(workflow_id, 'rewind');  -- somebody may just have removed it
    -- Sent again, since the answer was lost: it is done once.
    SELECT a.details INTO result FROM "pgflow".audit AS a
    WHERE a.workflow_id = workflow_id AND a.operation = 'rewind' AND a.details->>'request' = request::text;
    IF FOUND THEN
        RETURN result;
    END IF;
    IF ended AND EXISTS (SELECT FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id) THEN
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
    SELECT k.* INTO kept FROM "pgflow".ends AS k
    WHERE ended AND k.ended_at = coalesce(flow.completed_at, flow.created_at) AND k.workflow_id = workflow_id;
    key := CASE WHEN ended THEN kept.unique_key ELSE coalesce(run.unique_key, run.freed_key) END;
    SELECT r.workflow_id INTO holder FROM "pgflow".runs AS r WHERE r.unique_key = key AND r.workflow_id <> workflow_id;
    IF FOUND THEN
        RAISE EXCEPTION 'rewind: workflow % is unique, and meanwhile the live workflow % has its name and tags', workflow_id, holder
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Let that one end first.';
    END IF;
    -- Code of before meets the marked name of its run when it dispatches another of its name and tags, and would fail.
    IF key IS NOT NULL AND EXISTS (SELECT FROM "pgflow".workers AS w WHERE w.expires_at > now() AND w.names IS NULL) THEN
        RAISE EXCEPTION 'rewind: the workflow % is unique, and workers of an older version of pgflow still run, which would fail on finding it', workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Replace them first.';
    END IF;
    number := coalesce(cardinality(flow.rewinds), 0) + 1;
    BEGIN
        SELECT * INTO undone FROM "pgflow".undo_history(workflow_id, before, number);
        -- Children that have been pruned since, and whose output would be asked for again.
        PERFORM FROM "pgflow".workflows AS c WHERE c.id IN (
            SELECT (e.output->>'id')::uuid FROM "pgflow".events AS e
            WHERE e.workflow_id = workflow_id AND e.kind = 'child_workflow' AND e.status = 'completed')
        ORDER BY c.id FOR KEY SHARE;
        SELECT (e.output->>'id')::uuid INTO child
        FROM "pgflow".events AS e
        WHERE e.workflow_id = workflow_id AND e.kind = 'child_workflow' AND e.status = 'completed'
          AND NOT EXISTS (
              SELECT FROM "pgflow".workflows AS c WHERE c.id = (e.output->>'id')::uuid AND c.status IS DISTINCT FROM 'removing')
          AND NOT EXISTS (
              SELECT FROM "pgflow".events AS o
              WHERE o.workflow_id = workflow_id AND o.kind = 'child_output' AND o.status <> 'pending' AND o.input->>'id' = e.output->>'id')
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'rewind: before % the workflow % had started the child %, whose output it has not got there, and that child has been removed',
                "pgflow".display_location(before), workflow_id, child
                USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Rewind before the step that started it: another is started then.';
        END IF;
        SELECT * INTO mail FROM "pgflow".return_signals(
            workflow_id, number, CASE WHEN ended THEN flow.completed_at END, CASE WHEN ended THEN 0 ELSE run.mailbox END, before);
        IF ended OR run.status = 'failed' THEN  -- what was asked of it before its end is over with it
            DELETE FROM "pgflow".requests AS q WHERE q.workflow_id = workflow_id AND q.kind = 'cancel';
        END IF;
        -- Behind its name stands a character that no name has: workers of before, whose ids know of no rewinds, find it under none of theirs.
        IF ended THEN
            INSERT INTO "pgflow".runs (workflow_id, name, queue, priority, status, wake_at, epoch, mailbox, unique_key, waiters, created_at)
            VALUES (workflow_id, flow.name || chr(31), coalesce(kept.queue, 'default'), coalesce(kept.priority, 0), 'pending', now(),
                least(greatest(kept.epoch, 16777216), 2147483645) + 1, mail.last, key, kept.waiters, flow.created_at);
            PERFORM "pgflow".forget_end(workflow_id);
        ELSE
            UPDATE "pgflow".runs AS r SET
                name = flow.name || chr(31), status = 'pending', wake_at = now(), epoch = least(r.epoch, 2147483645) + 1, mailbox = mail.last,
                unique_key = key, freed_key = NULL, waiting_for = NULL, awaits_children = false, worker_id = NULL, claim = NULL,
                last_worker = NULL, reset = NULL, fork_before = NULL, suspicions = NULL, crashes = NULL, presumed = NULL, suspected_at = NULL,
                pause_requested = false, cancel_requested = r.cancel_requested AND run.status = 'paused'
            WHERE r.workflow_id = workflow_id;
        END IF;
        UPDATE "pgflow".workflows AS w SET
            status = NULL, output = NULL, error = NULL, completed_at = NULL, rewinds = w.rewinds || undone.undone,
            cancellations = (SELECT array_agg(c ORDER BY c) FROM unnest(w.cancellations) AS c WHERE undone.cut IS NULL OR c <= undone.cut)
        WHERE w.id = workflow_id;
        -- Its deadline counts anew, unless it goes on with a cancellation from before the place.
        UPDATE "pgflow".runs AS r SET
            timed_out = CASE WHEN cardinality(w.cancellations) > 0 OR r.cancel_requested THEN r.timed_out END,
            deadline = CASE WHEN cardinality(w.cancellations) > 0 OR r.cancel_requested THEN NULL ELSE now() + make_interval(secs => w.timeout) END
        FROM "pgflow".workflows AS w
        WHERE r.workflow_id = workflow_id AND w.id = workflow_id AND (w.timeout IS NOT NULL OR r.timed_out IS NOT NULL);
        PERFORM "pgflow".hint_at_deadline(flow.timeout);
        SELECT array_agg(DISTINCT c.id ORDER BY c.id) INTO live
        FROM "pgflow".forgotten_events AS f
        JOIN "pgflow".workflows AS c ON c.id = (f.output->>'id')::uuid AND c.parent_id = workflow_id AND c.status IS NULL
        WHERE f.workflow_id = workflow_id AND f.rewind = number AND f.kind = 'child_workflow' AND f.status = 'completed';
        -- And those whose step has no row: its turn was trimmed, or its process died before it was written.
        SELECT array_agg(DISTINCT o.id ORDER BY o.id) INTO live
        FROM (
            SELECT unnest(live) AS id
            UNION ALL
            SELECT c.id FROM "pgflow".workflows AS c
            WHERE c.parent_id = workflow_id AND c.status IS NULL AND c.parent_location >= before COLLATE "C"
              AND NOT EXISTS (
                  SELECT FROM "pgflow".forgotten_events AS f
                  WHERE f.workflow_id = workflow_id AND f.rewind < number AND f.kind = 'child_workflow' AND f.output->>'id' = c.id::text)
        ) AS o;
        IF children = 'cancel' THEN
            FOREACH child IN ARRAY coalesce(live, '{}') LOOP
                PERFORM "pgflow".cancel(child, reason, actor);
            END LOOP;
        END IF;
        -- Who has recorded the output keeps it.
        SELECT array_agg(DISTINCT o.workflow_id ORDER BY o.workflow_id) INTO recorded
        FROM unnest(array_append(kept.waiters || CASE WHEN NOT ended THEN run.waiters END, flow.parent_id)) AS told (id)
        JOIN "pgflow".events AS o ON o.workflow_id = told.id
        WHERE o.kind = 'child_output' AND o.status <> 'pending' AND o.input->>'id' = workflow_id::text;
        result := jsonb_build_object(
            'rewind', number, 'steps', undone.steps, 'signals', mail.returned, 'children', to_jsonb(coalesce(live, '{}')),
            'recorded_by', to_jsonb(coalesce(recorded, '{}')));
        PERFORM "pgflow".write_audit('rewind', workflow_id, NULL, reason, actor,
            result || jsonb_build_object('before', "pgflow".display_location(before), 'children_are', children)
            || jsonb_strip_nulls(jsonb_build_object('request', request)));
        IF "pgflow".may_hint() THEN
            PERFORM pg_notify('pgflow_wake_b0e190599d32269b', r.queue) FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id;
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


-- Inserts a signal to a workflow that is known to be there: what both signal functions do in the end.
-- send_signal(workflow_id uuid, name text, body json, id uuid DEFAULT NULL::uuid)
-- RETURNS uuid
#variable_conflict use_variable
DECLARE
    given_id uuid := coalesce(id, "pgflow".uuid7());
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
    INSERT INTO "pgflow".signals (id, workflow_id, name, body) VALUES (given_id, workflow_id, name, body)
    ON CONFLICT DO NOTHING;
    -- A hint to the worker that has it, or had it last, where hints can be sent.
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_mail_b0e190599d32269b', coalesce(r.worker_id, r.last_worker, 0)::text)
        FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id;
    END IF;
    RETURN given_id;
END


-- Says how long workflows of a name (*: of any that has nothing of its own) are kept once they have completed or were cancelled (keep), or failed: an interval, or forever. What is not given stays as it is. A name that nobody has dispatched yet is refused unless it may be missing. The reason and the actor go into the table audit.
-- set_retention(name text, keep text DEFAULT NULL::text, failed text DEFAULT NULL::text, missing_ok boolean DEFAULT false, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS void
#variable_conflict use_variable
DECLARE
    kept double precision := "pgflow".retention_seconds(keep, 'keep');
    failures double precision := "pgflow".retention_seconds(failed, 'failed');
BEGIN
    IF coalesce(name, '') = '' OR length(name) > 200 OR name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'retention: name is %, expected the name of a workflow (1 to 200 printable characters), or *', coalesce(quote_literal(left(name, 300)), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF kept IS NULL AND failures IS NULL THEN
        RAISE EXCEPTION 'retention: nothing is to be set for %, expected keep, failed, or both', quote_literal(name)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'reset takes back what was set.';
    END IF;
    IF name <> '*' AND NOT coalesce(missing_ok, false)
        AND NOT EXISTS (SELECT FROM "pgflow".workflows AS w WHERE w.name = name)
        AND NOT EXISTS (SELECT FROM "pgflow".retention AS r WHERE r.name = name)
    THEN
        RAISE EXCEPTION 'retention: no workflow % was ever dispatched here, and nothing was set for it before', quote_literal(name)
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Is it spelled so? If it is, say that it may be missing: missing_ok=True, missing_ok => true, --missing-ok.';
    END IF;
    INSERT INTO "pgflow".retention AS r (name, set_by, keep, failed) VALUES (name, 'operator', kept, failures)
    ON CONFLICT ON CONSTRAINT retention_pkey DO UPDATE SET
        keep = coalesce(EXCLUDED.keep, r.keep), failed = coalesce(EXCLUDED.failed, r.failed), changed_at = now();
    INSERT INTO "pgflow".chores AS c (name) VALUES ('retention') ON CONFLICT ON CONSTRAINT chores_pkey DO UPDATE SET next_at = now();
    PERFORM "pgflow".write_audit('retention', NULL, name, reason, actor, jsonb_strip_nulls(jsonb_build_object('keep', keep, 'failed', failed)));
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_chore_b0e190599d32269b', 'retention');
    END IF;
END


-- Sends a signal to a workflow in the caller's transaction and returns the signal's id; an error when the workflow is unknown, completed or cancelled.
-- signal(workflow_id uuid, name text, body json DEFAULT '{}'::json)
-- RETURNS uuid
#variable_conflict use_variable
DECLARE
    final text;
BEGIN
    SELECT w.status INTO final FROM "pgflow".workflows AS w WHERE w.id = workflow_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'signal: there is no workflow %', coalesce(workflow_id::text, 'null')
            USING ERRCODE = 'no_data_found';
    END IF;
    IF final IN ('completed', 'cancelled') THEN
        RAISE EXCEPTION 'signal: the workflow % is %, nothing was sent', workflow_id, final USING ERRCODE = 'no_data_found';
    END IF;
    RETURN "pgflow".send_signal(workflow_id, name, body);
END


-- Sends a signal to the oldest live workflow of a name whose tags contain these (else to the oldest failed one) in the caller's transaction and returns the signal's id; an error when there is none.
-- signal(workflow_name text, tags jsonb, name text, body json DEFAULT '{}'::json)
-- RETURNS uuid
#variable_conflict use_variable
DECLARE
    found_id uuid;
BEGIN
    IF coalesce(jsonb_typeof(tags), 'null') <> 'object' THEN
        RAISE EXCEPTION 'signal: tags are %, expected a flat JSON object', coalesce(tags::text, 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    found_id := "pgflow".find_live(workflow_name, tags);
    IF found_id IS NULL THEN
        RAISE EXCEPTION 'signal: no live workflow "%" has the tags %', workflow_name, tags USING ERRCODE = 'no_data_found';
    END IF;
    RETURN "pgflow".send_signal(found_id, name, body);
END


-- Sends a signal under an id that its sender has made, for clients that may not write tables: sent twice is sent once. Answers who receives it (null: nobody), how the receiver has ended if it has, and the other signal's name if the id is that of another one.
-- signal_once(id uuid, workflow_id uuid, workflow_name text, tags jsonb, name text, body json)
-- RETURNS TABLE(receiver uuid, final text, worker bigint, other text)
#variable_conflict use_variable
DECLARE
    earlier record;
BEGIN
    worker := 0;
    SELECT s.name, s.workflow_id INTO earlier FROM "pgflow".signals AS s WHERE s.id = id;
    IF FOUND THEN
        receiver := earlier.workflow_id;
        IF earlier.name <> name OR earlier.workflow_id <> workflow_id THEN
            other := earlier.name;
        END IF;
        RETURN NEXT;
        RETURN;
    END IF;
    SELECT w.id, w.status INTO receiver, final
    FROM "pgflow".workflows AS w WHERE w.id = coalesce(workflow_id, "pgflow".find_live(workflow_name, tags));
    IF receiver IS NOT NULL AND coalesce(final, 'failed') = 'failed' THEN
        PERFORM "pgflow".send_signal(receiver, name, body, id);
    END IF;
    RETURN NEXT;
END


-- Ends a live workflow at once as cancelled, without a worker and without its code, which cannot compensate; false when it has ended. Its children are asked to cancel. The reason and the actor go into the table audit.
-- terminate(workflow_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
BEGIN
    PERFORM "pgflow".must_exist(workflow_id, 'terminate');
    PERFORM FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id AND r.status <> 'failed' FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM "pgflow".end_cancelled(workflow_id, json_build_object('type', 'WorkflowTerminated', 'message',
        CASE WHEN coalesce(reason, '') = '' THEN 'terminated by an operator' ELSE 'terminated by an operator: ' || left(reason, 2000) END));
    PERFORM "pgflow".write_audit('terminate', workflow_id, NULL, reason, actor);
    RETURN true;
END


-- Where a turn of the loop at a location stands, in stored form; turns count from 0.
-- turn_location(loop text, turn integer)
-- RETURNS text
SELECT $1 || ',' || CASE WHEN $2 + 1 > 9 THEN chr(95 + length(($2 + 1)::text)) ELSE '' END || ($2 + 1)::text


-- The turn, from 0, of the loop at a location (the second) in which a location below it stands.
-- turn_of(location text, loop text)
-- RETURNS integer
SELECT regexp_replace(split_part(split_part(substr($1, length($2) + 2), ',', 1), '.', 1), '[a-z]', '', 'g')::int - 1


-- Takes history back to what it was before a step, in both orders: what came later goes to forgotten history under the number of a rewind. Returns the last place in the order of completion that is left (null: all), which locations the rewind undid (as in workflows.rewinds), and how many steps.
-- undo_history(workflow_id uuid, before text, number integer, OUT cut integer, OUT undone text, OUT steps integer)
-- RETURNS record
#variable_conflict use_variable
DECLARE
    copy uuid := gen_random_uuid();  -- under which history as it was before the step is put together
BEGIN
    cut := "pgflow".copy_history(workflow_id, before, copy, 'rewind');
    WITH held AS MATERIALIZED (
        SELECT e.location, false AS forgotten, e.kind, e.status, e.seq, e.attempts, e.completed_at, e.wake_at, e.loop_progress, e.loop_seq
        FROM "pgflow".events AS e WHERE e.workflow_id = workflow_id
        UNION ALL
        SELECT f.location, true, f.kind, f.status, f.seq, f.attempts, f.completed_at, f.wake_at, f.loop_progress, f.loop_seq
        FROM "pgflow".forgotten_events AS f WHERE f.workflow_id = workflow_id AND f.rewind = 0
    ),
    copied AS MATERIALIZED (
        SELECT c.location, c.kind, c.status, c.seq, c.attempts, c.completed_at, c.wake_at, c.loop_progress, c.loop_seq
        FROM "pgflow".events AS c WHERE c.workflow_id = copy
    ),
    loops AS MATERIALIZED (
        SELECT l.location, l.seq IS NOT NULL AS ended, "pgflow".turn_location(l.location, coalesce(l.loop_progress, 0)) AS turn,
            "pgflow".turn_location(l.location, coalesce(l.loop_progress, 0) + 1) AS later
        FROM copied AS l WHERE l.kind = 'loop'
    ),
    -- same: it stays as it is. forgets: a loop that only forgets turns which had ended by then. passed: a row of such a turn.
    fates AS MATERIALIZED (
        SELECT h.location, h.forgotten, h.kind, c.location IS NOT NULL AS stays,
            c.location IS NOT NULL AND (h.status, h.seq, h.attempts, h.completed_at, h.wake_at, h.loop_progress, h.loop_seq)
                IS NOT DISTINCT FROM (c.status, c.seq, c.attempts, c.completed_at, c.wake_at, c.loop_progress, c.loop_seq) AS same,
            c.location IS NOT NULL AND h.kind = 'loop' AND h.status = c.status
                AND coalesce(c.loop_progress, 0) >= coalesce(h.loop_progress, 0) AS forgets,
            c.location IS NULL AND h.location < before COLLATE "C" AND EXISTS (
                SELECT FROM loops AS l
                WHERE h.location > l.location || ',' COLLATE "C"
                  AND h.location < CASE WHEN l.ended THEN l.location || '-' ELSE l.turn END COLLATE "C") AS passed
        FROM held AS h LEFT JOIN copied AS c ON c.location = h.location
    ),
    goes AS MATERIALIZED (
        SELECT f.location, f.forgotten, f.kind, f.stays, regexp_replace(f.location, ',?[^,]*$', '') AS body
        FROM fates AS f WHERE NOT (f.same OR f.passed OR f.forgets)
    ),
    -- What was undone before the place: steps that do something under an id of their own, and whole bodies. Of those in one body that come after
    -- all that stays in it, the first and the last say enough.
    candidates AS MATERIALIZED (
        SELECT g.location, g.body FROM goes AS g
        WHERE g.location < before COLLATE "C"
          AND (g.kind IN ('activity', 'child_workflow', 'signal_send') OR (NOT g.stays AND g.kind IN ('loop', 'branch', 'timeout')))
    ),
    bodies AS MATERIALIZED (
        SELECT b.body, (
            SELECT max(f.location COLLATE "C") FROM fates AS f
            WHERE f.same AND (b.body = '' OR starts_with(f.location, b.body || ','))) AS stays_last
        FROM (SELECT DISTINCT c.body FROM candidates AS c) AS b
    ),
    earlier AS MATERIALIZED (
        SELECT c.location, c.body, b.stays_last FROM candidates AS c JOIN bodies AS b ON b.body = c.body
    ),
    marks AS MATERIALIZED (
        SELECT '=' || e.location AS mark FROM earlier AS e WHERE e.stays_last > e.location COLLATE "C"
        UNION ALL
        SELECT '+' || min(e.location COLLATE "C") || ':' || max(e.location COLLATE "C")
        FROM earlier AS e WHERE (e.stays_last > e.location COLLATE "C") IS NOT TRUE GROUP BY e.body
        UNION ALL
        -- Of turns that came later than the one to which a loop goes back, history may have been trimmed.
        SELECT '+' || l.later || ':'
        FROM loops AS l
        WHERE NOT l.ended AND l.location < before COLLATE "C"
          AND EXISTS (SELECT FROM goes AS g WHERE g.location = l.location OR starts_with(g.location, l.location || ','))
    ),
    moved AS (
        DELETE FROM "pgflow".events AS e USING fates AS f
        WHERE e.workflow_id = workflow_id AND e.location = f.location AND NOT f.forgotten AND NOT f.same
        RETURNING e.*, f.passed, f.forgets
    ),
    archived AS (
        INSERT INTO "pgflow".forgotten_events (
            workflow_id, location, iteration, seq, version, kind, name, status, attempts, created_at, completed_at, input, output, error,
            wake_at, turn_state, turn_now, loop_progress, loop_state, encoding, turn_seq, loop_seq, rewind)
        SELECT m.workflow_id, m.location, m.iteration, m.seq, m.version, m.kind, m.name, m.status, m.attempts, m.created_at, m.completed_at,
            m.input, m.output, m.error, m.wake_at, m.turn_state, m.turn_now, m.loop_progress, m.loop_state, m.encoding, m.turn_seq, m.loop_seq,
            CASE WHEN m.passed THEN 0 ELSE number END
        FROM moved AS m WHERE NOT m.forgets
    ),
    relabelled AS (
        UPDATE "pgflow".forgotten_events AS f SET rewind = number
        FROM goes AS g
        WHERE f.workflow_id = workflow_id AND f.location = g.location AND f.rewind = 0 AND g.forgotten
    ),
    revived AS (
        DELETE FROM "pgflow".forgotten_events AS f USING fates AS o
        WHERE f.workflow_id = workflow_id AND f.location = o.location AND f.rewind = 0 AND o.forgotten AND (o.same OR o.forgets)
    ),
    spare AS (
        DELETE FROM "pgflow".events AS c USING fates AS f
        WHERE c.workflow_id = copy AND c.location = f.location AND f.same AND NOT f.forgotten
    )
    SELECT (SELECT count(*) FROM goes), before || coalesce(' ' || (SELECT string_agg(m.mark, ' ' ORDER BY m.mark) FROM marks AS m), '')
    INTO steps, undone;
    UPDATE "pgflow".events AS e SET workflow_id = workflow_id WHERE e.workflow_id = copy;
END


-- Changes the queue and the priority of a workflow that is pending, sleeping or paused, and the run_at of one that no worker has ever had; false when it has all that already. An error when it runs or has ended. The reason and the actor go into the table audit.
-- update_workflow(workflow_id uuid, queue text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
DECLARE
    run record;
    new_queue text;
    new_priority int;
    new_wake_at timestamptz;
BEGIN
    IF queue IS NULL AND priority IS NULL AND run_at IS NULL THEN
        RAISE EXCEPTION 'update_workflow: nothing is given to be changed, expected a queue, a priority or run_at'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF queue = '' OR length(queue) > 200 OR queue ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'update_workflow: queue is %, expected the name of a queue (1 to 200 printable characters)', quote_literal(queue)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF run_at >= timestamptz '10000-01-01 00:00:00+00' AND run_at <> 'infinity' THEN
        RAISE EXCEPTION 'update_workflow: run_at is %, expected a moment before the year 10000, or infinity', run_at
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM "pgflow".must_exist(workflow_id, 'update_workflow');
    -- A claim is either over, and seen here, or comes after this and finds what this has written.
    SELECT r.* INTO run FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    IF NOT FOUND OR run.status NOT IN ('pending', 'sleeping', 'paused') THEN
        RAISE EXCEPTION 'update_workflow: the workflow % is %, expected one that is pending, sleeping or paused', workflow_id,
            coalesce(run.status, (SELECT w.status FROM "pgflow".workflows AS w WHERE w.id = workflow_id), 'ended')
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = CASE WHEN run.status = 'running' THEN 'Pause it first, and resume it afterwards.' ELSE '' END;
    END IF;
    IF run_at IS NOT NULL AND run.epoch <> 0 THEN
        RAISE EXCEPTION 'update_workflow: the workflow % has begun already, its run_at can no longer be changed', workflow_id
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Its queue and priority can.';
    END IF;
    new_queue := coalesce(queue, run.queue);
    new_priority := coalesce(priority, run.priority);
    -- Workers no longer look at what was due before the last that they took of a queue and priority: what comes there now is due now.
    new_wake_at := coalesce(run_at, run.wake_at);
    IF new_wake_at < now() THEN
        new_wake_at := now();
    END IF;
    IF (new_queue, new_priority) = (run.queue, run.priority) AND (run_at IS NULL OR run_at = run.wake_at) THEN
        RETURN false;
    END IF;
    UPDATE "pgflow".runs AS r SET queue = new_queue, priority = new_priority, wake_at = new_wake_at WHERE r.workflow_id = workflow_id;
    IF run.status <> 'paused' AND new_wake_at <= now() AND "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_wake_b0e190599d32269b', new_queue);
    END IF;
    PERFORM "pgflow".write_audit('update', workflow_id, NULL, reason, actor, jsonb_strip_nulls(jsonb_build_object(
        'queue', queue, 'priority', priority, 'run_at', run_at)));
    RETURN true;
END


-- A new UUID of version 7: its first 48 bits are the time in milliseconds.
-- uuid7()
-- RETURNS uuid
SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid


-- Lets a workflow that sleeps look again now: activities that wait for their next attempt are tried at once, and what was missed is found; its sleeps, deadlines and listens go on as they were. False when it does not sleep. The reason and the actor go into the table audit.
-- wake(workflow_id uuid, reason text DEFAULT NULL::text, actor text DEFAULT NULL::text)
-- RETURNS boolean
#variable_conflict use_variable
DECLARE
    run record;
    attempts int;
BEGIN
    PERFORM "pgflow".must_exist(workflow_id, 'wake');
    SELECT r.status, r.queue INTO run FROM "pgflow".runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    IF NOT FOUND OR run.status <> 'sleeping' THEN
        RETURN false;
    END IF;
    -- Nobody writes to its history while it sleeps. The moments of sleeps, deadlines and listens are the code's own and stay.
    UPDATE "pgflow".events AS e SET wake_at = now()
    WHERE e.workflow_id = workflow_id AND e.kind = 'activity' AND e.status = 'pending' AND e.wake_at > now();
    GET DIAGNOSTICS attempts = ROW_COUNT;
    -- Not by the worker that may have it in memory as it was: its history is to be read again.
    UPDATE "pgflow".runs AS r SET status = 'pending', wake_at = now(), waiting_for = NULL, awaits_children = false, last_worker = NULL
    WHERE r.workflow_id = workflow_id;
    IF "pgflow".may_hint() THEN
        PERFORM pg_notify('pgflow_wake_b0e190599d32269b', run.queue);
    END IF;
    PERFORM "pgflow".write_audit('wake', workflow_id, NULL, reason, actor, jsonb_build_object('attempts', attempts));
    RETURN true;
END


-- Leaves a row in the table audit. The actor is the database's role if none is given.
-- write_audit(operation text, workflow_id uuid, subject text, reason text, actor text, details jsonb DEFAULT NULL::jsonb)
-- RETURNS void
#variable_conflict use_variable
DECLARE
    role text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF actor = '' OR length(actor) > 200 OR actor ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION '%: actor=%: expected a name of 1 to 200 printable characters', operation, quote_literal(left(actor, 300))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF length(reason) > 2000 THEN
        RAISE EXCEPTION '%: the reason has % characters, expected at most 2000', operation, length(reason)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO "pgflow".audit (actor, role, operation, workflow_id, subject, reason, details)
    VALUES (coalesce(actor, role), role, operation, workflow_id, subject, nullif(reason, ''), details);
END
