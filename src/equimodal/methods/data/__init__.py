"""Methods that resample or drop inputs."""
