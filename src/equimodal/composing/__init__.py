"""Several methods as one, and which of them cannot be."""
