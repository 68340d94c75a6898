-- How many workflows there are by name, status and the like, up to a limit, and the place at which to go on counting, null if there is no more.
-- {branches}, {edges}, {limit}: as in inspect_list.sql.
WITH {decisions}
found AS MATERIALIZED (
    SELECT b.created_at, b.id FROM (
        {branches}
    ) AS b
    ORDER BY b.created_at DESC, b.id DESC LIMIT {limit}
),
edge AS MATERIALIZED (
    {edges}
),
counted AS (
    SELECT count(*)::int AS number FROM found
),
place AS (
    (SELECT found.created_at, found.id FROM found, counted WHERE counted.number >= {limit} ORDER BY found.created_at, found.id LIMIT 1)
    UNION ALL
    (SELECT edge.created_at, edge.id FROM edge, counted WHERE counted.number < {limit})
)
SELECT counted.number, place.created_at, place.id FROM counted LEFT JOIN place ON true
