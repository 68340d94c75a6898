-- Delivers again a signal that was set aside; the client decides about the limit and about notifying.
SELECT {schema}.redeliver(%(id)s::uuid, %(body)s::json, %(reason)s::text, %(actor)s::text)
FROM (
    SELECT set_config('pgflow.payload_limit', %(payload_limit)s::text, true),
           CASE WHEN %(quiet)s::boolean THEN set_config('pgflow.hints', 'off', true) END
    OFFSET 0) AS set
