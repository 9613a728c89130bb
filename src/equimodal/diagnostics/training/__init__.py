"""What happens during training: curves, and whether gradients agree."""
