-- The body of a message that was too large for its notification.
SELECT body::text FROM {schema}.messages WHERE id = %(id)s AND name = %(name)s
