-- What the code of a worker says of how long its workflows are kept; what it says no more is forgotten. What operators have set is not touched.
WITH given AS (
    SELECT given.name, given.keep FROM unnest(%(names)s::text[], %(keeps)s::float8[]) AS given (name, keep)
),
gone AS (
    DELETE FROM {schema}.retention AS r USING given WHERE r.name = given.name AND r.set_by = 'code' AND given.keep IS NULL
),
put AS (
    INSERT INTO {schema}.retention AS r (name, set_by, keep)
    SELECT given.name, 'code', given.keep FROM given WHERE given.keep IS NOT NULL ORDER BY given.name
    ON CONFLICT (name, set_by) DO UPDATE SET keep = EXCLUDED.keep, changed_at = now() WHERE r.keep IS DISTINCT FROM EXCLUDED.keep
    RETURNING r.name
)
INSERT INTO {schema}.chores AS c (name)
SELECT 'retention' WHERE EXISTS (SELECT FROM put)
ON CONFLICT (name) DO UPDATE SET next_at = now()
