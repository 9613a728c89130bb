"""Looking without training: what was found of a model, and its predictions."""
