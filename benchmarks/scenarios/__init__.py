"""One scenario a file: each is a function from a `Plan` to its figures."""
