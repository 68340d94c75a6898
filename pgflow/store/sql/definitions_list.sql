-- What live workers know of workflows, the newest build first: of a name, a queue and a build one line.
SELECT DISTINCT ON (w.build_order COLLATE "C", d.name, q.queue) d.name, q.queue, w.build, d.arguments::text
FROM {schema}.workers AS w
CROSS JOIN LATERAL unnest(w.queues) AS q (queue)
CROSS JOIN LATERAL json_each(w.definitions) AS d (name, arguments)
WHERE w.expires_at > now() AND (%(name)s::text IS NULL OR d.name = %(name)s::text)
ORDER BY w.build_order COLLATE "C" DESC NULLS LAST, d.name, q.queue, w.started_at DESC
LIMIT %(limit)s::int
