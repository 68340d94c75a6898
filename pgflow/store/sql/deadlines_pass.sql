-- Cancels workflows whose deadline has passed, and ends those of them that no worker has ever had; how these ended is read behind it.
SELECT p.id, p.name, p.after, p.ended, p.error FROM {schema}.pass_deadlines(%(most)s::int) AS p
