-- Starts what is `given` before it, one workflow or thousands, each under an id made by the caller, so that sending it twice is harmless.
-- Unique workflows enter `runs` first, where a live holder of the same key keeps them out; all others enter `workflows` first,
-- where their id keeps out those that were started before, including those that have ended. A unique one whose id was started
-- and has ended since this statement began meets it in `workflows`: that is an error, and the statement is sent again.
-- What was started is looked up as a hashed set (IN ... IS TRUE): a join with rows that cannot be estimated would be a nested loop.
-- What existed before is probed row by row, and only where nothing was started (LATERAL ... LIMIT, OFFSET 0): while the
-- tables' statistics are young, a join would read all workflows.
-- A child that is older than its parent is that of an earlier workflow of the parent's id, which has been removed: its line says so.
-- A holder that committed after this statement began is invisible to it: its line says so (no name), and the caller asks again.
, wanted AS MATERIALIZED (
    SELECT given.*, CASE WHEN is_unique THEN sha256(convert_to(name || chr(31) || tags::text, 'UTF8')) END AS unique_key
    FROM given
),
keyed AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, unique_key, deadline)
    SELECT id, name, queue, priority, 'pending', greatest(run_at, now()), unique_key, now() + make_interval(secs => timeout)
    FROM wanted
    WHERE unique_key IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.workflows AS w WHERE w.id = wanted.id OFFSET 0)
    ORDER BY unique_key, number
    ON CONFLICT DO NOTHING
    RETURNING workflow_id
),
alone AS (
    INSERT INTO {schema}.workflows (id, name, tags, input, parent_id, root_id, detached, timeout, parent_location)
    SELECT DISTINCT ON (id) id, name, tags, input, parent_id, root_id, detached, timeout, parent_location
    FROM wanted
    WHERE unique_key IS NOT NULL AND id IN (SELECT workflow_id FROM keyed)
    ORDER BY id, number
    RETURNING id
),
others AS (
    INSERT INTO {schema}.workflows (id, name, tags, input, parent_id, root_id, detached, timeout, parent_location)
    SELECT id, name, tags, input, parent_id, root_id, detached, timeout, parent_location
    FROM wanted
    WHERE unique_key IS NULL
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
),
started AS (
    SELECT id FROM alone UNION ALL SELECT id FROM others
),
running AS (
    INSERT INTO {schema}.runs (workflow_id, name, queue, priority, status, wake_at, deadline)
    SELECT DISTINCT ON (id) id, name, queue, priority, 'pending', greatest(run_at, now()), now() + make_interval(secs => timeout)
    FROM wanted
    WHERE unique_key IS NULL AND (id IN (SELECT started.id FROM started)) IS TRUE
    ORDER BY id, number
),
twins AS MATERIALIZED (
    SELECT id, name, unique_key
    FROM wanted
    WHERE unique_key IS NOT NULL AND (id IN (SELECT started.id FROM started)) IS TRUE
)
SELECT
    told.number::int - 1,
    coalesce(CASE WHEN told.created THEN told.id END, known.id, holder.workflow_id, twins.id),
    coalesce(CASE WHEN told.created THEN told.name END, known.name, holder.name, twins.name),
    told.created,
    told.queue,
    coalesce(known.created_at < told.parent_since, false)
FROM (
    SELECT wanted.*, (id IN (SELECT started.id FROM started)) IS TRUE AS created FROM wanted
) AS told
LEFT JOIN LATERAL (
    SELECT w.id, CASE w.status WHEN 'removing' THEN w.name || ' (being removed)' ELSE w.name END AS name, w.created_at
    FROM {schema}.workflows AS w WHERE NOT told.created AND w.id = told.id LIMIT 1
) AS known ON true
LEFT JOIN LATERAL (
    SELECT r.workflow_id, rtrim(r.name, chr(31)) AS name FROM {schema}.runs AS r WHERE NOT told.created AND r.unique_key = told.unique_key LIMIT 1
) AS holder ON true
LEFT JOIN twins ON twins.unique_key = told.unique_key
ORDER BY told.number
