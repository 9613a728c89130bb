"""What the model answers from all modalities and from each alone: agreement, chance, confidence."""
