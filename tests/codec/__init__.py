"""How values become JSON and come back."""
