"""From numbers to a diagnosis, and from that to advice."""
