"""Files of `deploy/`: what they start, and with which settings."""
