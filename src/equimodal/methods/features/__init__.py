"""Methods that act on features before the head."""
