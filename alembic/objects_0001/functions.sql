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
AS $$
#variable_conflict use_variable
DECLARE
    given_id uuid := coalesce(id, {schema}.uuid7());
    given_tags jsonb := coalesce(tags, '{}');
    key bytea;
    found_id uuid;
    found_name text;
BEGIN
    IF coalesce(name, '') = '' OR length(name) > 200 THEN
        RAISE EXCEPTION 'dispatch: name is %, expected the name of a workflow (1 to 200 characters)', coalesce(quote_literal(name), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(json_typeof(input), 'null') <> 'object' THEN
        RAISE EXCEPTION 'dispatch: input is %, expected a JSON object of the arguments by name', coalesce(json_typeof(input), 'null')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF jsonb_typeof(given_tags) <> 'object' OR EXISTS (
        SELECT FROM jsonb_each(CASE jsonb_typeof(given_tags) WHEN 'object' THEN given_tags ELSE '{}' END) AS tag
        WHERE jsonb_typeof(tag.value) IN ('object', 'array')
    ) THEN
        RAISE EXCEPTION 'dispatch: tags are %, expected a flat JSON object', given_tags
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF coalesce(queue, '') = '' THEN
        RAISE EXCEPTION 'dispatch: queue is empty, expected the name of a queue' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF is_unique THEN
        key := sha256(convert_to(name || chr(31) || given_tags::text, 'UTF8'));
    END IF;
    -- Another transaction may start the same, or end it, between two statements of this one: a few rounds, then an error.
    FOR round IN 1 .. 10 LOOP
        SELECT w.id, w.name INTO found_id, found_name FROM {schema}.workflows AS w WHERE w.id = given_id;
        IF found_id IS NOT NULL THEN
            IF found_name <> name THEN
                RAISE EXCEPTION 'dispatch: the id % belongs to a workflow "%", expected "%"', given_id, found_name, name
                    USING ERRCODE = 'unique_violation', HINT = 'Choose another id.';
            END IF;
            RETURN given_id;
        END IF;
        IF key IS NOT NULL THEN
            SELECT r.workflow_id INTO found_id FROM {schema}.runs AS r WHERE r.unique_key = key;
            IF found_id IS NOT NULL THEN
                RETURN found_id;
            END IF;
        END IF;
        INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key)
        VALUES (given_id, name, queue, coalesce(priority, 0), 'pending', greatest(run_at, now()), key)
        ON CONFLICT DO NOTHING;
        IF FOUND THEN
            INSERT INTO {schema}.workflows (id, name, tags, input) VALUES (given_id, name, given_tags, input);
            PERFORM pg_notify('{wake_channel}', queue);
            RETURN given_id;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'dispatch: workflow "%" with tags % is started and ended by others all the time', name, given_tags
        USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
END
$$;
--;
COMMENT ON FUNCTION {schema}.dispatch(text, json, jsonb, uuid, boolean, timestamptz, int, text) IS
'Starts a workflow in the caller''s transaction and returns its id. An id used before with the same name, or a live workflow '
'of the same name and tags when is_unique, comes back and nothing is started.';
