"""A catalogue of the Python standard library: the job that `make demo` runs."""
