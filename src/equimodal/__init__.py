"""Balanced multimodal learning for PyTorch.

>>> import equimodal as eq
>>> method = eq.OGMGE(alpha=0.8)
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from equimodal import commanded as _commanded  # noqa: F401 - first, before PyTorch is imported

# isort: split
import torch as _torch  # noqa: F401

if TYPE_CHECKING:
    from equimodal import functional, methods
    from equimodal.adapters import Adapter
    from equimodal.attach.tokens import Tokens
    from equimodal.balancer import Balancer
    from equimodal.criterion import TokenLoss
    from equimodal.errors import BalanceWarning, MatchError, SetupError, StepError
    from equimodal.evidence import Evidence
    from equimodal.method import Capabilities, Method, Order
    from equimodal.methods import (
        AGM,
        AMSS,
        ARL,
        AUG,
        BSS,
        CGGM,
        CML,
        DGL,
        DIMML,
        G2D,
        GE,
        IPRM,
        LFM,
        MASAM,
        MBSD,
        MCR,
        MIDAS,
        MIMO,
        MLA,
        MSES,
        MSLR,
        MWAM,
        OGM,
        OGMGE,
        OLM,
        OPM,
        PASSION,
        PMR,
        UMT,
        AMCo,
        AsymmetricWeights,
        Consolidation,
        Continuous,
        Curriculum,
        DataRemixing,
        DetachedConsolidation,
        DiagnosingRelearning,
        DynamicMSLR,
        Ensemble,
        EntropyWeighted,
        FilterScaling,
        FittedWeight,
        FixedHiddenLayer,
        FixedWeights,
        GradedStimulation,
        GradientBlending,
        GradientCosine,
        Greedy,
        HeadSlices,
        HiddenLayer,
        InfoReg,
        InverseFrequency,
        InverseProbability,
        JensenShannon,
        Joint,
        LearnedWeight,
        LeastSquares,
        LossRule,
        LossWeighting,
        MinNorm,
        MixtureFirst,
        MMCosine,
        MMPareto,
        ModalityDropout,
        ModalityValuation,
        ModGap,
        MultiLoss,
        OfflineBlending,
        OnlineBlending,
        OwnVectors,
        Pretraining,
        PrototypicalEntropy,
        ReconBoost,
        RunningMagnitude,
        SampleValuation,
        SimBaMM,
        SwitchedStimulation,
        TCMax,
        Teacher,
        Thresholded,
        TorchJD,
        TwoSided,
        Uncertainty,
        UniformWeights,
        Unimodal,
        UnitLeastSquares,
        Unprojected,
        WeightCosine,
        WeightedSequence,
        teachers_of,
    )
    from equimodal.noise import ElementNoise, Noise, TensorNoise
    from equimodal.readout import Readouts
    from equimodal.scores import Ablation, Probe, Scores, Split
    from equimodal.scores.given import Given
    from equimodal.scores.loss_fall import LossFall
    from equimodal.step import Shapes, Step
    from equimodal.system.ranks import ALONE


def choose(what: Any, out: Any = None, **options: Any) -> Any:
    """Choose a method for a model of the user's; see `equimodal.choosing.choose`."""
    from equimodal.choosing import choose as chosen

    return chosen(what, out, **options)


# Where names are defined that no method has; what is imported when it is first asked for.
_WHERE = {
    "ALONE": "system.ranks",
    "Ablation": "scores",
    "Adapter": "adapters",
    "BalanceWarning": "errors",
    "Balancer": "balancer",
    "Capabilities": "method",
    "ElementNoise": "noise",
    "Evidence": "evidence",
    "Given": "scores.given",
    "LossFall": "scores.loss_fall",
    "MatchError": "errors",
    "Method": "method",
    "Noise": "noise",
    "Order": "method",
    "Probe": "scores",
    "Readouts": "readout",
    "Scores": "scores",
    "SetupError": "errors",
    "Shapes": "step",
    "Split": "scores",
    "Step": "step",
    "StepError": "errors",
    "TensorNoise": "noise",
    "TokenLoss": "criterion",
    "Tokens": "attach.tokens",
}
_ROOMS = (
    "attach",
    "balancer",
    "composing",
    "criterion",
    "epochs",
    "errors",
    "evidence",
    "functional",
    "loop",
    "matching",
    "method",
    "methods",
    "modalities",
    "noise",
    "planning",
    "readout",
    "reading",
    "scores",
    "search",
    "step",
    "system",
    "update",
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    module = importlib.import_module(f"{__name__}.{_WHERE.get(name, 'methods')}")
    found = globals()[name] = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__version__ = "0.1.0"

__all__ = [
    "AGM",
    "ALONE",
    "AMSS",
    "ARL",
    "AUG",
    "BSS",
    "CGGM",
    "CML",
    "DGL",
    "DIMML",
    "G2D",
    "GE",
    "IPRM",
    "LFM",
    "MASAM",
    "MBSD",
    "MCR",
    "MIDAS",
    "MIMO",
    "MLA",
    "MSES",
    "MSLR",
    "MWAM",
    "OGM",
    "OGMGE",
    "OLM",
    "OPM",
    "PASSION",
    "PMR",
    "UMT",
    "AMCo",
    "Ablation",
    "Adapter",
    "AsymmetricWeights",
    "BalanceWarning",
    "Balancer",
    "Capabilities",
    "Consolidation",
    "Continuous",
    "Curriculum",
    "DataRemixing",
    "DetachedConsolidation",
    "DiagnosingRelearning",
    "DynamicMSLR",
    "ElementNoise",
    "Ensemble",
    "EntropyWeighted",
    "Evidence",
    "FilterScaling",
    "FittedWeight",
    "FixedHiddenLayer",
    "FixedWeights",
    "Given",
    "GradedStimulation",
    "GradientBlending",
    "GradientCosine",
    "Greedy",
    "HeadSlices",
    "HiddenLayer",
    "InfoReg",
    "InverseFrequency",
    "InverseProbability",
    "JensenShannon",
    "Joint",
    "LearnedWeight",
    "LeastSquares",
    "LossFall",
    "LossRule",
    "LossWeighting",
    "MMCosine",
    "MMPareto",
    "MatchError",
    "Method",
    "MinNorm",
    "MixtureFirst",
    "ModGap",
    "ModalityDropout",
    "ModalityValuation",
    "MultiLoss",
    "Noise",
    "OfflineBlending",
    "OnlineBlending",
    "Order",
    "OwnVectors",
    "Pretraining",
    "Probe",
    "PrototypicalEntropy",
    "Readouts",
    "ReconBoost",
    "RunningMagnitude",
    "SampleValuation",
    "Scores",
    "SetupError",
    "Shapes",
    "SimBaMM",
    "Split",
    "Step",
    "StepError",
    "SwitchedStimulation",
    "TCMax",
    "Teacher",
    "TensorNoise",
    "Thresholded",
    "TokenLoss",
    "Tokens",
    "TorchJD",
    "TwoSided",
    "Uncertainty",
    "UniformWeights",
    "Unimodal",
    "UnitLeastSquares",
    "Unprojected",
    "WeightCosine",
    "WeightedSequence",
    "choose",
    "functional",
    "methods",
    "teachers_of",
]
