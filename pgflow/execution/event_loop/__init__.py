"""The event loop on which a workflow's code runs, and what asyncio's tools become on it."""
