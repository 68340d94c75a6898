"""The pages of the documentation are run."""
