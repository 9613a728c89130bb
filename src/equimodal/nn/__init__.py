"""Encoders, fusion heads and a model of both, so that results need no private code."""

from equimodal.nn.encoders import (
    MLP,
    CNN1d,
    CNN2d,
    CNN3d,
    LearnedPositions,
    ResNet18,
    SequenceTransformer,
    SinusoidalPositions,
)
from equimodal.nn.heads import Concat, FiLM, FusionHead, Gated, LateAverage, Sum
from equimodal.nn.hosts import (
    AVGA,
    MMTM,
    PSP,
    TSN,
    Branch,
    CentralNet,
    CrossModalTransformer,
    MMTMBlock,
    pair_similarity_loss,
    sample_segments,
    segment_cross_entropy,
)
from equimodal.nn.initialisation import initialise
from equimodal.nn.model import Multimodal

__all__ = [
    "AVGA",
    "MLP",
    "MMTM",
    "PSP",
    "TSN",
    "Branch",
    "CNN1d",
    "CNN2d",
    "CNN3d",
    "CentralNet",
    "Concat",
    "CrossModalTransformer",
    "FiLM",
    "FusionHead",
    "Gated",
    "LateAverage",
    "LearnedPositions",
    "MMTMBlock",
    "Multimodal",
    "ResNet18",
    "SequenceTransformer",
    "SinusoidalPositions",
    "Sum",
    "initialise",
    "pair_similarity_loss",
    "sample_segments",
    "segment_cross_entropy",
]
