"""Settings of all tests."""

import torch
from hypothesis import settings

# Small tensors gain nothing from threads, and two test workers on two cores lose by them.
torch.set_num_threads(1)

settings.register_profile("equimodal", deadline=None)  # the first example pays for imports
settings.load_profile("equimodal")
