"""One statement for each thing that a client or an operator asks."""
