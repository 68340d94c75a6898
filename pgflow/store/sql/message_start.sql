-- Where a subscription begins: the highest number given so far, and the last message that it would have had.
-- A message that was sent late, by a worker that had lost the workflow, is not the last: among the workflow's latest numbers it is the highest place.
SELECT coalesce(top.id, 0), found.id, found.tags::text, found.body::text, found.workflow_id, found.place
FROM (SELECT max(id) FROM {schema}.messages) AS top (id)
LEFT JOIN LATERAL (
    SELECT m.id, m.tags, CASE WHEN octet_length(m.body::text) <= %(small)s THEN m.body END AS body, m.workflow_id, m.place
    FROM (
        SELECT id, workflow_id
        FROM {schema}.messages
        WHERE %(last)s AND name = %(name)s AND tags @> %(tags)s::jsonb
        ORDER BY id DESC
        LIMIT 1
    ) AS newest
    JOIN {schema}.messages AS m ON m.name = %(name)s AND m.id > newest.id - %(late)s AND m.id <= newest.id
    WHERE m.id = newest.id OR (m.workflow_id = newest.workflow_id AND m.tags @> %(tags)s::jsonb)
    ORDER BY m.place DESC NULLS LAST, m.id DESC
    LIMIT 1
) AS found ON true
