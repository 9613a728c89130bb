"""Balancing inside other libraries' training loops. Each module needs its library."""
