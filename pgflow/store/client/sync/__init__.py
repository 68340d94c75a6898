"""The same for the synchronous client."""
