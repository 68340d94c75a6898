CREATE OR REPLACE FUNCTION {schema}.fork(
    workflow_id uuid, before text, id uuid DEFAULT NULL, queue text DEFAULT NULL, reason text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $function$
#variable_conflict use_variable
DECLARE
    new_id uuid := coalesce(id, {schema}.uuid7());
    new_queue text;
    cut int;  -- results up to this place in the order of completion are copied; null: all
BEGIN
    IF queue = '' OR length(queue) > 200 OR queue ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'fork: queue=%: expected a name of 1 to 200 printable characters', quote_literal(left(queue, 300))
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM {schema}.must_exist(workflow_id, 'fork');
    IF EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = new_id AND w.forked_from = workflow_id) THEN
        RETURN new_id;  -- asked for twice: done once
    ELSIF EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = new_id) THEN
        RAISE EXCEPTION 'fork: the id % belongs to a workflow already', new_id USING ERRCODE = 'unique_violation', HINT = 'Choose another id.';
    END IF;
    -- History must not change while it is copied.
    PERFORM FROM {schema}.runs AS r WHERE r.workflow_id = workflow_id FOR NO KEY UPDATE;
    cut := {schema}.copy_history(workflow_id, before, new_id, 'fork');
    INSERT INTO {schema}.workflows (id, name, tags, tags_given, input, seed, state, forked_from, created_at, cancellations)
    SELECT new_id, w.name, w.tags, w.tags_given, w.input, coalesce(w.seed, w.id), w.state, w.id, w.created_at,
        (SELECT array_agg(c ORDER BY c) FROM unnest(w.cancellations) AS c WHERE cut IS NULL OR c <= cut)
    FROM {schema}.workflows AS w WHERE w.id = workflow_id;
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
    INSERT INTO {schema}.runs (workflow_id, name, queue, status, wake_at, epoch, created_at)
    SELECT new_id, w.name, new_queue, 'pending', now(), 1, w.created_at FROM {schema}.workflows AS w WHERE w.id = new_id;
    IF {schema}.may_hint() THEN
        PERFORM pg_notify('{wake_channel}', new_queue);
    END IF;
    PERFORM {schema}.write_audit('fork', workflow_id, NULL, reason, actor, jsonb_build_object(
        'new_id', new_id, 'before', {schema}.display_location(before), 'queue', new_queue));
    RETURN new_id;
END
$function$;
