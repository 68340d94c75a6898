"""Operating one workflow: cancel, pause, resume, retry, fork."""
