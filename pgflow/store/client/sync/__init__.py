"""The twins for threads. Every other file here is generated from its namesake one folder up, by `scripts/sync_twins.py`."""
