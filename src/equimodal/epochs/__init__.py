"""What happens around an epoch: another order of the data, passes over it, copies of the model."""
