"""pgflow: durable workflows on nothing but PostgreSQL."""
