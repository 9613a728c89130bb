"""Settings of all tests."""

import os

# Small tensors gain nothing from threads, and two test workers on two cores lose by them: nor shall
# the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("equimodal", deadline=None)  # the first example pays for imports
settings.load_profile("equimodal")
