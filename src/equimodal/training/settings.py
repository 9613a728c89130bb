"""How a model is trained, apart from the method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import nn, optim

from equimodal.errors import SetupError


@dataclass(frozen=True)
class Settings:
    """Settings of a training run; None stands for what suits the data set.

    SGD has the settings of OGM-GE's published code (momentum 0.9, weight decay 1e-4, a tenth of the
    learning rate after 70 epochs) but for the learning rate, which depends on the data.

    Args:
        epochs: passes over the training data.
        batch_size: samples per batch.
        optimizer: "sgd" or "adamw".
        lr: learning rate at the start.
        momentum: of SGD.
        weight_decay: of either optimizer; 1e-4 for SGD, 1e-2 for AdamW by default.
        lr_step: epochs after which the learning rate is a tenth.
        precision: "32", or mixed precision with "bf16" or "16", the latter with loss scaling.
        clip: largest norm of the gradient of all parameters, after modulation; 0 for no clipping.
        accumulate: batches per optimizer step.
        seed: of initial values, order of samples and noise.

    Raises:
        SetupError: a number is out of its range.
    """

    epochs: int | None = None
    batch_size: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    lr_step: int = 70
    precision: Literal["32", "bf16", "16"] = "32"
    clip: float = 0.0
    accumulate: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "lr_step": 1, "accumulate": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise SetupError(f"{name}: expected {least} or more, found {value}")
        for name in ("lr", "momentum", "weight_decay", "clip"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise SetupError(f"{name}: expected a number of 0 or more, found {value}")
        if self.lr == 0:
            raise SetupError("lr: expected a number above 0, found 0: nothing would be trained")

    def suited(self, data: str) -> Settings:
        """Return settings without None, with what suits a data set filled in."""
        epochs, sgd = SUITED.get(data, (100, 1e-3))
        by_optimizer = {"sgd": (sgd, 1e-4), "adamw": (1e-3, 1e-2)}
        lr, weight_decay = by_optimizer[self.optimizer]
        return replace(
            self,
            epochs=epochs if self.epochs is None else self.epochs,
            lr=lr if self.lr is None else self.lr,
            weight_decay=weight_decay if self.weight_decay is None else self.weight_decay,
        )

    def make_optimizer(self, model: nn.Module) -> optim.Optimizer:
        """Return the optimizer of all parameters of a model."""
        assert self.lr is not None
        assert self.weight_decay is not None
        if self.optimizer == "adamw":
            return optim.AdamW(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return optim.SGD(
            model.parameters(),
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )


# Epochs, and learning rate of SGD: chosen by the validation accuracy of joint training.
SUITED = {"watch": (24, 0.05), "mfeat": (15, 0.05), "synthetic": (12, 0.05)}
