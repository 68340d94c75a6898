"""A run in memory: its scopes, its steps, and the order in which results reach the code."""
