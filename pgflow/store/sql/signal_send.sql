-- Sends the signals `given` before it, under ids that their senders made: sent twice is sent once, to the same receiver. Those
-- that name no workflow go to the oldest live one of a name whose tags contain the given ones, else to a failed one.
-- No lock is taken on a receiver. Answers which workflow receives each (null: none), how the receiver has ended if it has, and
-- which worker has it or had it last; and, for an id that is that of another signal, the other's name.
, addressed AS MATERIALIZED (
    SELECT given.*, earlier.id IS NOT NULL AS sent,
           CASE WHEN earlier.name <> given.name OR earlier.workflow_id <> given.workflow_id THEN earlier.name END AS other,
           CASE
               WHEN earlier.id IS NOT NULL THEN earlier.workflow_id
               WHEN given.workflow_id IS NOT NULL THEN given.workflow_id
               ELSE {schema}.find_live(given.workflow_name, given.tags) END AS receiver
    FROM given
    LEFT JOIN {schema}.signals AS earlier ON earlier.id = given.id
),
found AS MATERIALIZED (
    SELECT addressed.*, w.id IS NOT NULL AS known, w.status AS final, coalesce(r.worker_id, r.last_worker, 0) AS worker
    FROM addressed
    LEFT JOIN {schema}.workflows AS w ON w.id = addressed.receiver
    LEFT JOIN LATERAL (SELECT * FROM {schema}.runs AS run WHERE run.workflow_id = addressed.receiver LIMIT 1) AS r ON true
),
inserted AS (
    INSERT INTO {schema}.signals (id, workflow_id, name, body, sender_id)
    SELECT id, receiver, name, body, sender_id
    FROM found
    WHERE known AND NOT sent AND coalesce(final, 'failed') = 'failed'
    ORDER BY number
    ON CONFLICT (id) DO NOTHING
)
SELECT number::int - 1, CASE WHEN known OR sent THEN receiver END, CASE WHEN NOT sent THEN final END, worker, other
FROM found
ORDER BY number
