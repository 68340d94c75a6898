CREATE FUNCTION {schema}.display_location(location text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$ SELECT '{' || replace(regexp_replace(location, '[a-z]', '', 'g'), ',', ', ') || '}' $$;
--;
COMMENT ON FUNCTION {schema}.display_location(text) IS
'A location as people write it: display_location(''2,a10.1'') is {2, 10.1}.';
--;
CREATE FUNCTION {schema}.uuid7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT encode(
        set_bit(set_bit(
            overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
            52, 1), 53, 1),
        'hex')::uuid
$$;
--;
COMMENT ON FUNCTION {schema}.uuid7() IS 'A new UUID of version 7: its first 48 bits are the time in milliseconds.';
--;
CREATE FUNCTION {schema}.dispatch(
    name text,
    input json DEFAULT '{}',
    tags jsonb DEFAULT NULL,
    id uuid DEFAULT NULL,
    is_unique boolean DEFAULT false,
    run_at timestamptz DEFAULT NULL,
    priority int DEFAULT 0,
    queue text DEFAULT 'default'
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    given_id uuid := coalesce(id, {schema}.uuid7());
    given_tags jsonb := coalesce(tags, '{}');
    payload_limit int := coalesce(nullif(current_setting('pgflow.payload_limit', true), '')::int, 1048576);
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
    IF is_unique THEN
        key := sha256(convert_to(name || chr(31) || given_tags::text, 'UTF8'));  -- as the clients' statement has it
    END IF;
    -- Another transaction may start the same, or end it, between two statements of this one: a few rounds, then an error.
    FOR round IN 1 .. 10 LOOP
        SELECT w.id, w.name INTO found_id, found_name FROM {schema}.workflows AS w WHERE w.id = given_id;
        IF FOUND THEN
            IF found_name <> name THEN
                RAISE EXCEPTION 'dispatch: the id % belongs to a workflow "%", expected "%"', given_id, found_name, name
                    USING ERRCODE = 'unique_violation', HINT = 'Choose another id.';
            END IF;
            RETURN given_id;
        END IF;
        IF key IS NOT NULL THEN
            SELECT r.workflow_id INTO found_id FROM {schema}.runs AS r WHERE r.unique_key = key;
            IF FOUND THEN
                RETURN found_id;
            END IF;
        END IF;
        -- In the order of the clients' statement, so that the two never wait for each other crosswise: what is
        -- unique enters `runs` first, all else `workflows`.
        IF key IS NOT NULL THEN
            INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key)
            VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key)
            ON CONFLICT DO NOTHING;
            CONTINUE WHEN NOT FOUND;
        END IF;
        INSERT INTO {schema}.workflows (id, name, tags, input) VALUES (given_id, name, given_tags, input)
        ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            DELETE FROM {schema}.runs AS r WHERE key IS NOT NULL AND r.workflow_id = given_id;
            CONTINUE;
        END IF;
        IF key IS NULL THEN
            INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at)
            VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()));
        END IF;
        -- A hint, where hints can be sent.
        IF (run_at IS NULL OR run_at <= now())
            AND has_function_privilege(to_regprocedure('pg_catalog.pg_notify(text,text)')::oid, 'EXECUTE')
        THEN
            PERFORM pg_notify('{wake_channel}', queue);
        END IF;
        RETURN given_id;
    END LOOP;
    RAISE EXCEPTION 'dispatch: workflow "%" with tags % is started and ended by others all the time', name, given_tags
        USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
END
$function$;
--;
COMMENT ON FUNCTION {schema}.dispatch(text, json, jsonb, uuid, boolean, timestamptz, int, text) IS
'Starts a workflow in the caller''s transaction and returns its id. An id used before with the same name, or a live workflow '
'of the same name and tags when is_unique, comes back and nothing is started.';
