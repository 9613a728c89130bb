"""What each encoder knows, could know by itself, and costs."""
