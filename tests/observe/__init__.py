"""What people and programs see of pgflow while it runs: metrics, health, traces."""
