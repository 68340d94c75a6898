"""The worker: claims workflows, runs them, keeps its lease, recovers those of the dead, hands back what it holds."""
