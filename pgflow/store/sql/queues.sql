-- Work that waits, by queue and name: how much of it is due, since when, and when the next will be. Levels (a queue, a name and a priority) are found by one
-- index probe each, as far as `levels` of them; of each the due runs are one range of the index, of which so many are counted that all of
-- them together come to `bound` at most. The oldest and the next are one probe each,
-- whatever there is.
WITH RECURSIVE levels AS (
    (
        SELECT 1 AS number, r.queue, r.name, r.priority
        FROM {schema}.runs AS r
        WHERE r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
        ORDER BY r.queue, r.name, r.priority DESC
        LIMIT 1
    )
    UNION ALL
    SELECT levels.number + 1, next.queue, next.name, next.priority
    FROM levels
    CROSS JOIN LATERAL (
        SELECT found.queue, found.name, found.priority
        FROM (
            (
                SELECT 1 AS step, r.queue, r.name, r.priority
                FROM {schema}.runs AS r
                WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority < levels.priority
                  AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
                ORDER BY r.priority DESC
                LIMIT 1
            )
            UNION ALL
            (
                SELECT 2, r.queue, r.name, r.priority
                FROM {schema}.runs AS r
                WHERE (r.queue, r.name) > (levels.queue, levels.name)
                  AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
                ORDER BY r.queue, r.name, r.priority DESC
                LIMIT 1
            )
        ) AS found
        ORDER BY found.step
        LIMIT 1
    ) AS next
    WHERE levels.number < %(levels)s::int
),
share AS (
    SELECT %(bound)s::int / count(*) AS each FROM levels
)
-- A rewound run has a character behind its name.
SELECT levels.queue, rtrim(levels.name, chr(31)), sum(due.runs)::bigint, min(due.oldest), min(next.wake_at), now(), bool_or(due.cut)
FROM levels
CROSS JOIN LATERAL (
    SELECT count(*) AS runs, min(first.wake_at) AS oldest, count(*) >= (SELECT share.each FROM share) AS cut
    FROM (
        SELECT r.wake_at
        FROM {schema}.runs AS r
        WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
          AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL AND r.wake_at <= now()
        ORDER BY r.wake_at
        LIMIT (SELECT share.each FROM share)
    ) AS first
) AS due
LEFT JOIN LATERAL (
    SELECT r.wake_at
    FROM {schema}.runs AS r
    WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
      AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL AND r.wake_at > now() AND r.wake_at < 'infinity'
    ORDER BY r.wake_at
    LIMIT 1
) AS next ON true
GROUP BY levels.queue, rtrim(levels.name, chr(31))
ORDER BY levels.queue, rtrim(levels.name, chr(31))
