-- Messages that no notification announced: those of some names, after a number each, except those that are known.
SELECT top.id, found.id, found.name, found.tags::text, found.body::text, found.workflow_id, found.place
FROM (SELECT coalesce(max(id), 0) FROM {schema}.messages) AS top (id)
LEFT JOIN LATERAL (
    SELECT message.*
    FROM unnest(%(names)s::text[], %(after)s::bigint[]) AS wanted (name, after)
    CROSS JOIN LATERAL (
        SELECT id, name, tags, CASE WHEN octet_length(body::text) <= %(small)s THEN body END AS body, workflow_id, place
        FROM {schema}.messages
        WHERE name = wanted.name AND id > wanted.after AND id <> ALL (%(known)s::bigint[])
        ORDER BY id
        LIMIT %(limit)s
    ) AS message
    ORDER BY message.id
    LIMIT %(limit)s
) AS found ON true
ORDER BY found.id
