"""Workers as they are run: real processes, killed and stopped, and `pgflow.Worker` within the test's own."""
