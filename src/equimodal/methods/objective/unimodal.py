"""Each modality trained alone, and the ensemble of the unimodal models."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.criterion.kind import excludes
from equimodal.errors import SetupError, unknown
from equimodal.method import REST, Capabilities, Method
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step


class Ensemble(Method):
    r"""Train every modality alone, and predict by the mean of the unimodal models.

    .. math:: L = \sum_m L(u_m, y), \quad \hat p = \frac{1}{M} \sum_m \mathrm{softmax}(u_m)

    The modalities share nothing: each encoder is trained as it would be on its own, with a linear
    classifier that belongs to the method. The model's own head is neither trained nor used. An
    ensemble of unimodal models is a baseline that balancing methods often fail to beat.

    Where outputs are no scores of classes of which one is right (the criterion tells), or with
    `average="logits"`, they themselves are averaged.

    Args:
        average: "probabilities" of the classes, as late fusion does, or "logits".
    """

    name = "ensemble"
    source = "late fusion"
    replaces_joint = True
    capabilities = Capabilities(sharded=True)

    def __init__(self, average: str = "probabilities") -> None:
        super().__init__()
        if average not in ("probabilities", "logits"):
            raise SetupError(unknown("average", average, ("probabilities", "logits")))
        self.average = average
        self.readouts = Readouts()

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        losses = {name: step.loss(logits[name], modality=name) for name in self._trained()}
        return {"joint": step.logits.new_zeros(()), **losses}

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of every unimodal model."""
        return self.readouts(step.features)  # type: ignore[no-any-return]

    def predict(self, step: Step) -> Tensor:
        """Return the mean of the unimodal logits, or the logarithm of the mean probabilities."""
        logits = torch.stack(list(self.readouts(step.features).values()))
        exclusive = logits.ndim > 2 and logits.shape[2] > 1 and excludes(step.criterion.loss)
        if self.average == "logits" or not exclusive:
            return logits.mean(dim=0)
        return logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits))

    def _trained(self) -> tuple[str, ...]:
        return self.names


class Unimodal(Ensemble):
    """Train one modality alone: its encoder and a linear classifier of the method's own.

    The other encoders and the model's head are left as they are. Prediction is by this modality.

    Args:
        modality: which one.
    """

    name = "unimodal"
    source = "each modality alone"

    def __init__(self, modality: str) -> None:
        super().__init__(average="logits")
        self.modality = modality

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        if self.modality not in names:
            raise SetupError("Unimodal(modality): " + unknown("modality", self.modality, names))

    def frozen(self) -> frozenset[str]:
        return super().frozen() | set(self.names) - {self.modality}

    def predict(self, step: Step) -> Tensor:
        outputs: Mapping[str, Tensor] = self.readouts(step.features)
        return outputs[self.modality]

    def _trained(self) -> tuple[str, ...]:
        return (self.modality,)
