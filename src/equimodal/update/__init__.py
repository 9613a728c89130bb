"""What happens to gradients and updates, once per optimizer step."""
