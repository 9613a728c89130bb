"""Unimodal pre-training, then joint fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.method import REST, Method
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class Pretraining(Method):
    r"""Train every modality alone for some epochs, then all of them jointly.

    .. math:: L = \sum_m L(u_m, y) \text{ for } e < E \text{, then } L(f, y), \quad
        u_m = W_m z_m + b_m

    A plain baseline, as good as Gradient-Blending in Table 1 of Wei and Hu (ICML 2024). The
    classifiers belong to the method and are left behind; the model's own head starts to be trained
    with the joint loss. What the optimizer remembers of the encoders is forgotten in between, as
    between two runs.

    Args:
        epochs: how many epochs of unimodal training, 1 or more; by default a quarter of all.

    Raises:
        SetupError: epochs is out of its range.
    """

    name = "pretraining"
    source = "Wei and Hu, ICML 2024"
    replaces_joint = True
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"epochs": share(1, of=4)}

    def __init__(self, epochs: int | None = None) -> None:
        super().__init__()
        if epochs is not None and epochs < 1:
            raise SetupError(f"Pretraining(epochs): expected 1 or more, found {epochs}")
        self.epochs = epochs
        self.window = (0, max(0, (epochs or 1) - 1))
        self.readouts = Readouts()

    def plan(self, epochs: int | None) -> None:
        super().plan(epochs)
        assert self.epochs is not None
        self.window = (0, self.epochs - 1)

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        losses = {name: step.loss(logits[name], modality=name) for name in self.names}
        return {"joint": step.logits.new_zeros(()), **losses}

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def end_epoch(self, run: Run) -> None:
        if self.window is not None and run.epoch == self.window[1]:
            for name in run.names:
                run.reset_optimizer(name)
