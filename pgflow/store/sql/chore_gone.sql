-- Removes a chore that is done once and for all.
DELETE FROM {schema}.chores AS c WHERE c.name = %(chore)s::text AND c.holder = %(holder)s::uuid
