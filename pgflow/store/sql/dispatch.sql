-- Starts what is `given` before it, one workflow or thousands, each under an id made for it: done twice is done once.
-- Those that must be unique enter `runs` first, where a live holder of the same key keeps them out; all others enter
-- `workflows` first, where their id keeps out those that were started before, ended ones included.
-- A holder that committed after this statement began cannot be seen by it: its line says so (no name), ask again.
, wanted AS MATERIALIZED (
    SELECT given.*, CASE WHEN is_unique THEN sha256(convert_to(name || chr(31) || tags::text, 'UTF8')) END AS unique_key
    FROM given
),
keyed AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key)
    SELECT id, name, queue, priority, 'pending', greatest(run_at, now()), unique_key
    FROM wanted
    WHERE unique_key IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = wanted.id)
    ORDER BY unique_key, number
    ON CONFLICT DO NOTHING
    RETURNING workflow_id
),
started AS (
    INSERT INTO {schema}.workflows (id, name, tags, input, parent_id, root_id, detached)
    SELECT id, name, tags, input, parent_id, root_id, detached
    FROM wanted
    WHERE unique_key IS NULL OR id IN (SELECT workflow_id FROM keyed)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),
running AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at)
    SELECT DISTINCT ON (wanted.id) wanted.id, wanted.name, wanted.queue, wanted.priority, 'pending', greatest(wanted.run_at, now())
    FROM wanted
    JOIN started ON started.id = wanted.id
    WHERE wanted.unique_key IS NULL
    ORDER BY wanted.id, wanted.number
)
SELECT
    wanted.number::int - 1,
    coalesce(started.id, known.id, holder.workflow_id, twin.id),
    coalesce(CASE WHEN started.id IS NOT NULL THEN wanted.name END, known.name, holder.name, twin.name),
    started.id IS NOT NULL,
    wanted.queue
FROM wanted
LEFT JOIN started ON started.id = wanted.id
LEFT JOIN {schema}.workflows AS known ON known.id = wanted.id
LEFT JOIN {schema}.runs AS holder ON holder.unique_key = wanted.unique_key
LEFT JOIN (
    SELECT other.id, other.name, other.unique_key
    FROM wanted AS other
    JOIN started ON started.id = other.id
) AS twin ON twin.unique_key = wanted.unique_key
ORDER BY wanted.number
