"""The methods. The folders say where in the step a method acts."""

from equimodal.methods.gradient.coefficients import Coefficient, Continuous, Thresholded, TwoSided
from equimodal.methods.gradient.ogm import GE, OGM, OGMGE
from equimodal.methods.objective.joint import Joint
from equimodal.methods.objective.multi_loss import MultiLoss
from equimodal.methods.objective.unimodal import Ensemble, Unimodal
from equimodal.methods.registry import available, find

__all__ = [
    "GE",
    "OGM",
    "OGMGE",
    "Coefficient",
    "Continuous",
    "Ensemble",
    "Joint",
    "MultiLoss",
    "Thresholded",
    "TwoSided",
    "Unimodal",
    "available",
    "find",
]
