"""Methods that decide what trains when."""
