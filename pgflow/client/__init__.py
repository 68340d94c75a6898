"""The clients: start workflows, wait for their output, look at them, operate them, and read what they publish."""
