"""The papers' equations as pure tensor functions: no modules, no state."""

from equimodal.functional.coefficients import (
    continuous_coefficient,
    thresholded_coefficient,
    two_sided_coefficient,
)
from equimodal.functional.evidence import discrepancy_ratio, log_score
from equimodal.functional.linear import split_linear
from equimodal.functional.noise import (
    element_std,
    running_moments_,
    slice_moments,
    sliced_std,
    tensor_std,
)

__all__ = [
    "continuous_coefficient",
    "discrepancy_ratio",
    "element_std",
    "log_score",
    "running_moments_",
    "slice_moments",
    "sliced_std",
    "split_linear",
    "tensor_std",
    "thresholded_coefficient",
    "two_sided_coefficient",
]
