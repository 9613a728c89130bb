"""Methods that act on gradients, or on the updates made of them."""
