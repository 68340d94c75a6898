-- In how many seconds the next deadline is due, if there is one: one probe of an index that holds nothing but deadlines.
SELECT extract(epoch FROM min(r.deadline) - now())::float8 FROM {schema}.runs AS r WHERE r.deadline IS NOT NULL
