"""Plain joint training."""

from equimodal.method import Capabilities, Method


class Joint(Method):
    """Train on the user's loss as it is: the baseline that every method must beat."""

    name = "joint"
    capabilities = Capabilities(sharded=True)
