"""What the model makes of each modality: with some of them left out, noisy or exchanged."""
