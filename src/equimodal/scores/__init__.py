"""How well each modality does alone: where its logits come from."""

from equimodal.scores.ablation import Ablation
from equimodal.scores.auto import Auto, scores_from
from equimodal.scores.base import Scores
from equimodal.scores.function import Function
from equimodal.scores.given import Given
from equimodal.scores.loss_fall import LossFall
from equimodal.scores.probe import Probe
from equimodal.scores.split import Split, find_linear, weight_slices
from equimodal.system.modes import evaluation

__all__ = [
    "Ablation",
    "Auto",
    "Function",
    "Given",
    "LossFall",
    "Probe",
    "Scores",
    "Split",
    "evaluation",
    "find_linear",
    "scores_from",
    "weight_slices",
]
