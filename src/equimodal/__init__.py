"""Balanced multimodal learning for PyTorch.

>>> import equimodal as eq
>>> method = eq.OGMGE(alpha=0.8)
"""

from equimodal import functional, methods
from equimodal.balancer import Balancer
from equimodal.errors import BalanceWarning, MatchError, SetupError, StepError
from equimodal.evidence import Evidence
from equimodal.method import Capabilities, Method, Order
from equimodal.methods import (
    GE,
    OGM,
    OGMGE,
    Continuous,
    Ensemble,
    Joint,
    MultiLoss,
    Thresholded,
    TwoSided,
    Unimodal,
)
from equimodal.readout import Readouts
from equimodal.scores import Ablation, Probe, Scores, Split
from equimodal.step import Shapes, Step
from equimodal.update.noise import ElementNoise, Noise, TensorNoise

__version__ = "0.1.0"

__all__ = [
    "GE",
    "OGM",
    "OGMGE",
    "Ablation",
    "BalanceWarning",
    "Balancer",
    "Capabilities",
    "Continuous",
    "ElementNoise",
    "Ensemble",
    "Evidence",
    "Joint",
    "MatchError",
    "Method",
    "MultiLoss",
    "Noise",
    "Order",
    "Probe",
    "Readouts",
    "Scores",
    "SetupError",
    "Shapes",
    "Split",
    "Step",
    "StepError",
    "TensorNoise",
    "Thresholded",
    "TwoSided",
    "Unimodal",
    "functional",
    "methods",
]
