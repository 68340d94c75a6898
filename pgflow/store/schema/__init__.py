"""The tables, the migrations that make them, and whether a schema and this code go together."""
