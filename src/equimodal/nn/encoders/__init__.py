"""Encoders: from the input of one modality to features of shape ``(B, features)``."""

from equimodal.nn.encoders.cnn import CNN1d, CNN2d, CNN3d
from equimodal.nn.encoders.mlp import MLP
from equimodal.nn.encoders.positions import LearnedPositions, SinusoidalPositions
from equimodal.nn.encoders.resnet import ResNet18
from equimodal.nn.encoders.transformer import SequenceTransformer

__all__ = [
    "MLP",
    "CNN1d",
    "CNN2d",
    "CNN3d",
    "LearnedPositions",
    "ResNet18",
    "SequenceTransformer",
    "SinusoidalPositions",
]
