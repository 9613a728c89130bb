"""Batches from prepared clips: read in workers, made into a model's inputs on its device."""
