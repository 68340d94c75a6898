-- Delivers a signal that was set aside anew; the limit is the client's.
SELECT {schema}.redeliver(%(id)s::uuid, %(body)s::json)
FROM (SELECT set_config('pgflow.payload_limit', %(payload_limit)s::text, true) OFFSET 0) AS set
