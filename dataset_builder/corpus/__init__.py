"""Documents become passages."""
