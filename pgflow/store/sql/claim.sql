-- The usual claim: takes due runs of all levels, the most urgent first, and gives each a new epoch, which fences out its former owner.
-- (claim_hinted.sql takes those that a hint named, claim_suspected.sql those that may kill processes; claimed_*.sql only read.)
-- A level is a queue, a name and a priority. Its due runs are one range of the index, from `since` to now, so that the scan
-- passes neither sleepers nor names that this worker does not know; before `since` there are only entries that this worker
-- has seen taken, perhaps dead ones that vacuum cannot remove yet.
-- The statement first finds, without a lock, how many each level gives, by priority and age; then it takes that many, skipping
-- those that others have locked. A run that has just woken is left for a moment to the worker that may still have it in memory
-- (`patience`; a worker's first claim leaves none).
-- The worker's own row is locked against removal: a recovery of its runs has either seen this claim or prevents it.
-- A run at its first epoch has never had an owner: what its workflow was given is all there is, however old the snapshot, and
-- comes with the claim. For all others only later statements see what their last owners have left.
-- Runs that are suspected of killing processes are skipped (claim_suspected.sql takes them); the answer says whether any are due,
-- by the number of suspicions of the most suspected one.
-- A rewound run has a character after its name that no name has, so that workers of the previous version, which make ids without the number
-- of the rewind, do not find it. The answer says whether any is due, or soon: claims that also ask for such names take it.
-- The answer also says what lies ahead: when the next sleeper that this worker could take is due, if that is within `horizon`
-- seconds (the worker sets a timer instead of polling); and priorities that it has not met, by one index probe between each two
-- neighbours of those it knows, so that the cost depends neither on the number of runs nor on dead entries.
WITH alive AS MATERIALIZED (
    SELECT w.id FROM {schema}.workers AS w
    WHERE w.id = %(worker)s::bigint AND w.expires_at > now()
    FOR KEY SHARE SKIP LOCKED
),
levels AS (
    SELECT given.level, given.queue, given.name, given.priority, given.since
    FROM unnest(%(queues)s::text[], %(names)s::text[], %(priorities)s::int[], %(since)s::timestamptz[])
        WITH ORDINALITY AS given (queue, name, priority, since, level)
),
shares AS MATERIALIZED (
    SELECT due.level, count(*) AS share
    FROM (
        SELECT levels.level
        FROM levels
        CROSS JOIN LATERAL (
            SELECT r.wake_at
            FROM {schema}.runs AS r
            WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
              AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
              AND r.wake_at >= levels.since AND r.wake_at <= now() AND r.suspicions IS NULL
            ORDER BY r.wake_at
            LIMIT %(limit)s::int
        ) AS first
        ORDER BY levels.priority DESC, first.wake_at
        LIMIT %(limit)s::int
    ) AS due
    GROUP BY due.level
),
picked AS MATERIALIZED (
    SELECT levels.level, next.workflow_id, next.wake_at
    FROM shares
    JOIN levels ON levels.level = shares.level
    CROSS JOIN LATERAL (
        SELECT r.workflow_id, r.wake_at
        FROM {schema}.runs AS r
        WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
          AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
          AND r.wake_at >= levels.since AND r.wake_at <= now() AND r.suspicions IS NULL
          AND (r.last_worker IS NULL OR r.last_worker = %(worker)s::bigint OR r.wake_at <= now() - %(patience)s::interval)
        ORDER BY r.wake_at
        LIMIT shares.share
        FOR NO KEY UPDATE SKIP LOCKED
    ) AS next
    WHERE EXISTS (SELECT FROM alive)
),
taken AS (
    UPDATE {schema}.runs AS r SET
        status = 'running', worker_id = %(worker)s::bigint, claim = %(claim)s::bigint,
        -- Whatever was written there by hand.
        epoch = CASE WHEN r.epoch < 2147483647 THEN r.epoch + 1 ELSE 2 END,
        wake_at = NULL, waiting_for = NULL, awaits_children = false
    WHERE r.workflow_id = ANY (ARRAY(SELECT picked.workflow_id FROM picked))
    RETURNING r.workflow_id, r.name, r.queue, r.epoch, r.mailbox, r.cancel_requested
)
-- First one line about all: the time, how many were due, and what lies ahead; then a line for each run taken.
SELECT
    0 AS level, now() AS at, (SELECT coalesce(sum(shares.share), 0)::int FROM shares) AS due,
    (
        SELECT min(first.wake_at)
        FROM levels
        CROSS JOIN LATERAL (
            SELECT r.wake_at
            FROM {schema}.runs AS r
            WHERE r.queue = levels.queue AND r.name = levels.name AND r.priority = levels.priority
              AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
              AND r.wake_at > now() AND r.wake_at <= now() + make_interval(secs => %(horizon)s::double precision)
            ORDER BY r.wake_at
            LIMIT 1
        ) AS first
    ) AS next_wake_at,
    (
        SELECT array_agg(ARRAY[gaps.gap, found.priority])
        FROM unnest(%(gap_queues)s::text[], %(gap_names)s::text[], %(above)s::bigint[], %(below)s::bigint[])
            WITH ORDINALITY AS gaps (queue, name, above, below, gap)
        CROSS JOIN LATERAL (
            SELECT r.priority
            FROM {schema}.runs AS r
            WHERE r.queue = gaps.queue AND r.name = gaps.name
              AND r.status IN ('pending', 'sleeping') AND r.wake_at IS NOT NULL
              AND r.priority > gaps.above AND r.priority < gaps.below
            ORDER BY r.priority DESC
            LIMIT 1
        ) AS found
    ) AS new,
    (
        SELECT max(cardinality(r.suspicions))
        FROM {schema}.runs AS r
        WHERE r.suspicions IS NOT NULL AND r.queue = ANY (%(queues)s::text[]) AND r.name = ANY (%(names)s::text[])
          AND r.status IN ('pending', 'sleeping') AND r.wake_at <= now()
    ) AS suspected,
    EXISTS (
        SELECT FROM {schema}.runs AS r
        WHERE right(r.name, 1) = chr(31) AND r.queue = ANY (%(queues)s::text[])
          AND r.status IN ('pending', 'sleeping') AND r.wake_at <= now() + make_interval(secs => %(horizon)s::double precision)
    ) AS rewound,
    NULL::uuid AS workflow_id, NULL AS name, NULL AS queue, NULL::int AS epoch, NULL::bigint AS mailbox, NULL::boolean AS cancel,
    NULL AS input, NULL::jsonb AS tags, NULL::timestamptz AS created_at, NULL::uuid AS parent_id, NULL::uuid AS seed
UNION ALL
SELECT
    picked.level::int, picked.wake_at, NULL, NULL, NULL, NULL, NULL,
    taken.workflow_id, taken.name, taken.queue, taken.epoch, taken.mailbox, taken.cancel_requested,
    w.input::text, nullif(w.tags, '{}'), w.created_at, w.parent_id, coalesce(w.seed, w.id)
FROM taken
JOIN picked ON picked.workflow_id = taken.workflow_id
LEFT JOIN LATERAL (
    SELECT * FROM {schema}.workflows AS w WHERE w.id = taken.workflow_id AND taken.epoch = 1 LIMIT 1
) AS w ON true
