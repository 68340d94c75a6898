-- Starts workflows, one or thousands, each under the id that the client made for it: done twice is done once.
-- Those that must be unique enter `runs` first, where a live holder of the same key keeps them out; all others enter
-- `workflows` first, where their id keeps out those that were started before, ended ones included.
-- A holder that committed after this statement began cannot be seen by it: its line says so (no name), ask again.
WITH given AS MATERIALIZED (
    SELECT g.number, g.id, g.name, g.tags, g.input::json AS input, g.run_at, g.priority, g.queue, g.parent_id, g.root_id,
           CASE WHEN g.is_unique THEN sha256(convert_to(g.name || chr(31) || g.tags::text, 'UTF8')) END AS unique_key
    FROM unnest(
        %(ids)s::uuid[], %(names)s::text[], %(inputs)s::text[], %(tags)s::jsonb[], %(uniques)s::boolean[],
        %(run_ats)s::timestamptz[], %(priorities)s::int[], %(queues)s::text[], %(parent_ids)s::uuid[], %(root_ids)s::uuid[]
    ) WITH ORDINALITY AS g (id, name, input, tags, is_unique, run_at, priority, queue, parent_id, root_id, number)
),
keyed AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key)
    SELECT id, name, queue, priority, 'pending', greatest(run_at, now()), unique_key
    FROM given
    WHERE unique_key IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = given.id)
    ORDER BY unique_key, number
    ON CONFLICT DO NOTHING
    RETURNING workflow_id
),
started AS (
    INSERT INTO {schema}.workflows (id, name, tags, input, parent_id, root_id)
    SELECT id, name, tags, input, parent_id, root_id
    FROM given
    WHERE unique_key IS NULL OR id IN (SELECT workflow_id FROM keyed)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),
running AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at)
    SELECT DISTINCT ON (given.id) given.id, given.name, given.queue, given.priority, 'pending', greatest(given.run_at, now())
    FROM given
    JOIN started ON started.id = given.id
    WHERE given.unique_key IS NULL
    ORDER BY given.id, given.number
)
SELECT
    given.number::int - 1,
    coalesce(started.id, known.id, holder.workflow_id, twin.id),
    coalesce(CASE WHEN started.id IS NOT NULL THEN given.name END, known.name, holder.name, twin.name),
    started.id IS NOT NULL
FROM given
LEFT JOIN started ON started.id = given.id
LEFT JOIN {schema}.workflows AS known ON known.id = given.id
LEFT JOIN {schema}.runs AS holder ON holder.unique_key = given.unique_key
LEFT JOIN (
    SELECT other.id, other.name, other.unique_key
    FROM given AS other
    JOIN started ON started.id = other.id
) AS twin ON twin.unique_key = given.unique_key
ORDER BY given.number
