"""Workers that are killed at random moments under a mixed load, and what must be true of the database afterwards."""
