"""What the clients do their work with: connections, word of workflows that have ended, subscriptions."""
