"""What each modality contributes, what it lost in joint training, and whether to balance."""
