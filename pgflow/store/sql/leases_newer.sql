-- What live workers of newer builds than this serve. A build of which two workers have died within the last minute goes before nobody.
SELECT DISTINCT w.queues, w.names
FROM {schema}.workers AS w
WHERE w.build_order > coalesce(%(build)s::text, '') AND w.expires_at > now()
  AND w.queues && %(queues)s::text[] AND w.names && %(names)s::text[]
  AND (
      SELECT count(*) FROM {schema}.deaths AS d WHERE d.build_order = w.build_order AND d.died_at > now() - interval '1 minute'
  ) < 2
