"""The values that weights start from."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def initialise(module: nn.Module) -> None:
    """Draw the weights of a module, and of all modules in it, as the code of OGM-GE does.

    Convolutions are normal with the variance 2/fan_out (He et al., ICCV 2015), linear layers
    normal with the variance 2/(fan_in + fan_out) (Glorot and Bengio, AISTATS 2010), the scales of
    normalisation are 1 and all biases 0. The encoders and heads of `equimodal.nn` call it
    themselves; call it on a model of your own to compare with them from the same start.

    Args:
        module: changed in place; its other parameters and its buffers stay as they are.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    >>> initialise(model)
    """
    for layer in module.modules():
        if isinstance(layer, _ConvNd):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
        elif isinstance(layer, _BatchNorm | nn.GroupNorm | nn.LayerNorm):
            if layer.weight is not None:
                nn.init.ones_(layer.weight)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
