"""What each modality contributes, what it lost in joint training, and whether to balance.

`diagnose` runs everything and advises. Each part is a function of a `Subject` and a loader::

    with Subject(model, encoders, model.fusion) as subject:
        print(shapley(subject, loader))

The rooms: `contributions` (subsets, Shapley values, utilisation, robustness), `outputs` (agreement,
chance, calibration, discrepancy), `encoders` (probes, encoders trained alone, gap, cost),
`training` (curves, gradients), `advice`, and `blind` for models that answer in words.
"""

from equimodal.diagnostics.advice.diagnose import diagnose
from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.diagnostics.advice.verdicts import Advice
from equimodal.diagnostics.contributions.robustness import robustness
from equimodal.diagnostics.contributions.shapley import shapley, shapley_of
from equimodal.diagnostics.contributions.subsets import subsets
from equimodal.diagnostics.contributions.utilisation import utilisation
from equimodal.diagnostics.encoders.alone import alone
from equimodal.diagnostics.encoders.cost import cost
from equimodal.diagnostics.encoders.gap import gap
from equimodal.diagnostics.encoders.probes import probes
from equimodal.diagnostics.interval import Interval, mean_interval
from equimodal.diagnostics.outputs.agreement import agreement, agreement_of
from equimodal.diagnostics.outputs.calibration import calibration, calibration_of
from equimodal.diagnostics.outputs.chance import chance
from equimodal.diagnostics.outputs.discrepancy import discrepancy
from equimodal.diagnostics.outputs.predictions import predictions
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.training.curves import Curves
from equimodal.diagnostics.training.gradients import gradients

__all__ = [
    "Advice",
    "Curves",
    "Diagnosis",
    "Interval",
    "Subject",
    "agreement",
    "agreement_of",
    "alone",
    "calibration",
    "calibration_of",
    "chance",
    "cost",
    "diagnose",
    "discrepancy",
    "gap",
    "gradients",
    "mean_interval",
    "predictions",
    "probes",
    "robustness",
    "shapley",
    "shapley_of",
    "subsets",
    "utilisation",
]
