"""Who may write for a run: claims, leases, and the numbers that fence off whoever lost them."""
