"""What execution relies on, asked of every store: of the one in memory and of PostgreSQL."""
