-- Which of these workflows have ended, with their outcome, and which do not exist; the others have no line.
-- Only so many bytes of payloads are sent at once: beyond that only the status is answered, and the caller asks again.
SELECT ended.number::int - 1, ended.name, ended.status, ended.fits,
       CASE WHEN ended.fits THEN ended.output::text END, CASE WHEN ended.fits THEN ended.error::text END
FROM (
    SELECT found.*, sum(found.size) OVER (ORDER BY found.number ROWS UNBOUNDED PRECEDING) - found.size < %(bytes)s::bigint AS fits
    FROM (
        SELECT given.number, w.name, w.status, w.output, w.error,
               coalesce(octet_length(w.output::text), 0) + coalesce(octet_length(w.error::text), 0) AS size
        FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS given (id, number)
        LEFT JOIN {schema}.workflows AS w ON w.id = given.id
        WHERE w.id IS NULL OR w.status IS NOT NULL
    ) AS found
) AS ended
