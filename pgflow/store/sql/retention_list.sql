-- What is said of how long workflows are kept: by name, what operators have set before what code declares.
SELECT r.name, r.keep, r.failed, r.set_by, r.changed_at FROM {schema}.retention AS r ORDER BY r.name, r.set_by DESC
