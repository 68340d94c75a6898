"""Connections to PostgreSQL: how they are opened, what travels on them, how they are lost and opened again."""
