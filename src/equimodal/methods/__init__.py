"""The methods. The folders say where in the step a method acts.

A method's module is imported when its name is first asked for.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from equimodal.methods.registry import available, find

if TYPE_CHECKING:
    from equimodal.methods.data.bss import BSS
    from equimodal.methods.data.data_remixing import DataRemixing
    from equimodal.methods.data.modality_valuation import ModalityValuation
    from equimodal.methods.data.sample_valuation import SampleValuation
    from equimodal.methods.data.sequences import Curriculum, SampleSequence, WeightedSequence
    from equimodal.methods.features.amco import AMCo
    from equimodal.methods.features.greedy import Greedy
    from equimodal.methods.features.modality_dropout import ModalityDropout
    from equimodal.methods.features.opm import OPM
    from equimodal.methods.gradient.agm import AGM
    from equimodal.methods.gradient.amss import AMSS, FilterScaling, InverseProbability
    from equimodal.methods.gradient.cggm import CGGM
    from equimodal.methods.gradient.coefficients import (
        Coefficient,
        Continuous,
        Thresholded,
        TwoSided,
    )
    from equimodal.methods.gradient.conflict import Conflict, MinNorm, TorchJD
    from equimodal.methods.gradient.dgl import DGL
    from equimodal.methods.gradient.direction import Direction, GradientCosine, WeightCosine
    from equimodal.methods.gradient.inforeg import InfoReg
    from equimodal.methods.gradient.masam import MASAM
    from equimodal.methods.gradient.mmpareto import MMPareto
    from equimodal.methods.gradient.mwam import MWAM
    from equimodal.methods.gradient.ogm import GE, OGM, OGMGE
    from equimodal.methods.objective.alignment import (
        FittedWeight,
        JensenShannon,
        LearnedWeight,
        MixtureFirst,
    )
    from equimodal.methods.objective.arl import ARL, AsymmetricWeights, UniformWeights
    from equimodal.methods.objective.aug import AUG
    from equimodal.methods.objective.blending_schedule import OfflineBlending, OnlineBlending
    from equimodal.methods.objective.cml import CML
    from equimodal.methods.objective.di_mml import DIMML
    from equimodal.methods.objective.g2d import G2D
    from equimodal.methods.objective.gradient_blending import GradientBlending
    from equimodal.methods.objective.growing import FixedHiddenLayer, HiddenLayer
    from equimodal.methods.objective.iprm import IPRM
    from equimodal.methods.objective.joint import Joint
    from equimodal.methods.objective.lfm import LFM
    from equimodal.methods.objective.loss_rules import (
        InverseFrequency,
        LossRule,
        RunningMagnitude,
        Uncertainty,
    )
    from equimodal.methods.objective.loss_weighting import LossWeighting
    from equimodal.methods.objective.mbsd import MBSD
    from equimodal.methods.objective.mcr import MCR
    from equimodal.methods.objective.midas import MIDAS
    from equimodal.methods.objective.mimo import MIMO
    from equimodal.methods.objective.mmcosine import HeadSlices, MMCosine, OwnVectors
    from equimodal.methods.objective.modgap import ModGap
    from equimodal.methods.objective.multi_loss import MultiLoss
    from equimodal.methods.objective.olm import OLM
    from equimodal.methods.objective.passion import PASSION
    from equimodal.methods.objective.pmr import PMR
    from equimodal.methods.objective.simbamm import SimBaMM
    from equimodal.methods.objective.stimulation import (
        GradedStimulation,
        PrototypicalEntropy,
        SwitchedStimulation,
    )
    from equimodal.methods.objective.tcmax import TCMax
    from equimodal.methods.objective.umt import UMT
    from equimodal.methods.objective.unimodal import Ensemble, Unimodal
    from equimodal.methods.schedule.diagnosing_relearning import DiagnosingRelearning
    from equimodal.methods.schedule.fusions import EntropyWeighted, FixedWeights, Fusion
    from equimodal.methods.schedule.mla import MLA
    from equimodal.methods.schedule.mses import MSES
    from equimodal.methods.schedule.mslr import MSLR, DynamicMSLR
    from equimodal.methods.schedule.pretraining import Pretraining
    from equimodal.methods.schedule.projections import (
        LeastSquares,
        Projection,
        UnitLeastSquares,
        Unprojected,
    )
    from equimodal.methods.schedule.reconboost import (
        Consolidation,
        DetachedConsolidation,
        ReconBoost,
    )
    from equimodal.methods.teacher import Teacher, teachers_of

__all__ = [
    "AGM",
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
    "AsymmetricWeights",
    "Coefficient",
    "Conflict",
    "Consolidation",
    "Continuous",
    "Curriculum",
    "DataRemixing",
    "DetachedConsolidation",
    "DiagnosingRelearning",
    "Direction",
    "DynamicMSLR",
    "Ensemble",
    "EntropyWeighted",
    "FilterScaling",
    "FittedWeight",
    "FixedHiddenLayer",
    "FixedWeights",
    "Fusion",
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
    "LossRule",
    "LossWeighting",
    "MMCosine",
    "MMPareto",
    "MinNorm",
    "MixtureFirst",
    "ModGap",
    "ModalityDropout",
    "ModalityValuation",
    "MultiLoss",
    "OfflineBlending",
    "OnlineBlending",
    "OwnVectors",
    "Pretraining",
    "Projection",
    "PrototypicalEntropy",
    "ReconBoost",
    "RunningMagnitude",
    "SampleSequence",
    "SampleValuation",
    "SimBaMM",
    "SwitchedStimulation",
    "TCMax",
    "Teacher",
    "Thresholded",
    "TorchJD",
    "TwoSided",
    "Uncertainty",
    "UniformWeights",
    "Unimodal",
    "UnitLeastSquares",
    "Unprojected",
    "WeightCosine",
    "WeightedSequence",
    "available",
    "find",
    "teachers_of",
]

WHERE = {
    "AGM": "gradient.agm",
    "AMSS": "gradient.amss",
    "ARL": "objective.arl",
    "AUG": "objective.aug",
    "BSS": "data.bss",
    "CGGM": "gradient.cggm",
    "CML": "objective.cml",
    "DGL": "gradient.dgl",
    "DIMML": "objective.di_mml",
    "G2D": "objective.g2d",
    "GE": "gradient.ogm",
    "IPRM": "objective.iprm",
    "LFM": "objective.lfm",
    "MASAM": "gradient.masam",
    "MBSD": "objective.mbsd",
    "MCR": "objective.mcr",
    "MIDAS": "objective.midas",
    "MIMO": "objective.mimo",
    "MLA": "schedule.mla",
    "MSES": "schedule.mses",
    "MSLR": "schedule.mslr",
    "MWAM": "gradient.mwam",
    "OGM": "gradient.ogm",
    "OGMGE": "gradient.ogm",
    "OLM": "objective.olm",
    "OPM": "features.opm",
    "PASSION": "objective.passion",
    "PMR": "objective.pmr",
    "UMT": "objective.umt",
    "AMCo": "features.amco",
    "AsymmetricWeights": "objective.arl",
    "Coefficient": "gradient.coefficients",
    "Conflict": "gradient.conflict",
    "Consolidation": "schedule.reconboost",
    "Continuous": "gradient.coefficients",
    "Curriculum": "data.sequences",
    "DataRemixing": "data.data_remixing",
    "DetachedConsolidation": "schedule.reconboost",
    "DiagnosingRelearning": "schedule.diagnosing_relearning",
    "Direction": "gradient.direction",
    "DynamicMSLR": "schedule.mslr",
    "Ensemble": "objective.unimodal",
    "EntropyWeighted": "schedule.fusions",
    "FilterScaling": "gradient.amss",
    "FittedWeight": "objective.alignment",
    "FixedHiddenLayer": "objective.growing",
    "FixedWeights": "schedule.fusions",
    "Fusion": "schedule.fusions",
    "GradedStimulation": "objective.stimulation",
    "GradientBlending": "objective.gradient_blending",
    "GradientCosine": "gradient.direction",
    "Greedy": "features.greedy",
    "HeadSlices": "objective.mmcosine",
    "HiddenLayer": "objective.growing",
    "InfoReg": "gradient.inforeg",
    "InverseFrequency": "objective.loss_rules",
    "InverseProbability": "gradient.amss",
    "JensenShannon": "objective.alignment",
    "Joint": "objective.joint",
    "LearnedWeight": "objective.alignment",
    "LeastSquares": "schedule.projections",
    "LossRule": "objective.loss_rules",
    "LossWeighting": "objective.loss_weighting",
    "MMCosine": "objective.mmcosine",
    "MMPareto": "gradient.mmpareto",
    "MinNorm": "gradient.conflict",
    "MixtureFirst": "objective.alignment",
    "ModGap": "objective.modgap",
    "ModalityDropout": "features.modality_dropout",
    "ModalityValuation": "data.modality_valuation",
    "MultiLoss": "objective.multi_loss",
    "OfflineBlending": "objective.blending_schedule",
    "OnlineBlending": "objective.blending_schedule",
    "OwnVectors": "objective.mmcosine",
    "Pretraining": "schedule.pretraining",
    "Projection": "schedule.projections",
    "PrototypicalEntropy": "objective.stimulation",
    "ReconBoost": "schedule.reconboost",
    "RunningMagnitude": "objective.loss_rules",
    "SampleSequence": "data.sequences",
    "SampleValuation": "data.sample_valuation",
    "SimBaMM": "objective.simbamm",
    "SwitchedStimulation": "objective.stimulation",
    "TCMax": "objective.tcmax",
    "Teacher": "teacher",
    "Thresholded": "gradient.coefficients",
    "TorchJD": "gradient.conflict",
    "TwoSided": "gradient.coefficients",
    "Uncertainty": "objective.loss_rules",
    "UniformWeights": "objective.arl",
    "Unimodal": "objective.unimodal",
    "UnitLeastSquares": "schedule.projections",
    "Unprojected": "schedule.projections",
    "WeightCosine": "gradient.direction",
    "WeightedSequence": "data.sequences",
    "teachers_of": "teacher",
}


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    found = getattr(importlib.import_module(f"{__name__}.{WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
