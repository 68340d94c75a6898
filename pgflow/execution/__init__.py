"""User code over a cursor: the run's own event loop, the contexts, one file a kind of step. No SQL, no connection."""
