-- Where a subscription begins: the highest number given so far, and the last message that it would have had.
SELECT coalesce(top.id, 0), found.id, found.tags::text, found.body::text
FROM (SELECT max(id) FROM {schema}.messages) AS top (id)
LEFT JOIN LATERAL (
    SELECT id, tags, CASE WHEN octet_length(body::text) <= %(small)s THEN body END AS body
    FROM {schema}.messages
    WHERE %(last)s AND name = %(name)s AND tags @> %(tags)s::jsonb
    ORDER BY id DESC
    LIMIT 1
) AS found ON true
