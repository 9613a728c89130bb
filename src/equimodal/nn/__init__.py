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
from equimodal.nn.initialisation import initialise
from equimodal.nn.model import Multimodal

__all__ = [
    "MLP",
    "CNN1d",
    "CNN2d",
    "CNN3d",
    "Concat",
    "FiLM",
    "FusionHead",
    "Gated",
    "LateAverage",
    "LearnedPositions",
    "Multimodal",
    "ResNet18",
    "SequenceTransformer",
    "SinusoidalPositions",
    "Sum",
    "initialise",
]
