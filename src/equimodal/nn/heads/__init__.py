"""Fusion heads: from the features of all modalities to logits."""

from equimodal.nn.heads.concat import Concat
from equimodal.nn.heads.film import FiLM
from equimodal.nn.heads.fusion_head import FusionHead
from equimodal.nn.heads.gated import Gated
from equimodal.nn.heads.late_average import LateAverage
from equimodal.nn.heads.sum import Sum

__all__ = ["Concat", "FiLM", "FusionHead", "Gated", "LateAverage", "Sum"]
