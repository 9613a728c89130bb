"""Encoders that are trained apart, learn from each other in one direction, and are then fused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.di_mml import (
    confidence_weighted,
    discriminative,
    nearest_classes,
    one_way_contrast,
)
from equimodal.functional.precision import at_least_single
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.readout import Readouts, feature_vectors, vector_width
from equimodal.step import Shapes, Step


def encoding(epochs: int) -> int:
    """Return the length of the first stage: 150 of 170 in the released code, and never all.

    >>> encoding(170), encoding(40), encoding(2)
    (150, 35, 1)
    """
    return max(1, min(epochs - 1, share(150, of=170)(epochs)))


class DIMML(Method):
    r"""Detached and interactive multimodal learning, DI-MML (Fan et al., ACM MM 2024).

    .. math::
        L = \sum_m \ell(u_m, y) + w\, \ell(U z_m, y) + \frac{1}{M - 1} \sum_{t \ne m}
        \ell_{con}(z_m[D_t], \mathrm{sg}\, z_t[D_t]), \quad \text{then} \quad L = \ell(f, y)

    In the first stage every encoder has a classifier of its own, and all share another one, U, so
    that their features mean the same. From epoch `contrast` on they also learn from each other, in
    one direction: on the dimensions :math:`D_t` that tell the classes apart in modality t and not
    in m, the feature of m is drawn to that of t. The dimensions are chosen once, from a pass over
    the training data. In the second stage the encoders stay as they are, and the model's own head
    learns to fuse.

    Prediction is the sum of the modalities' logits and the model's own, each weighted by how sure
    it is of the sample; that of the modalities alone before the second stage.

    For classification with one class per sample. The equations are those of the released code.

    Args:
        temperature: of the contrast, above 0: 50 for CREMA-D, 10 for AVE and UCF-101 in the
            released scripts.
        weight: w, 0 or more.
        vote: temperature of the weights in the prediction, above 0: 1 or 3 in the scripts.
        contrast: epochs before the first with the contrast, 1 or more; by default 20 in 170 of the
            training, as in the released code.
        encoding: epochs of the first stage, 1 or more; by default 150 in 170 of the training.

    Raises:
        SetupError: an argument is out of its range, or the features are not of one width.
    """

    name = "di-mml"
    source = "Fan et al., ACM MM 2024"
    replaces_joint = True
    needs = frozenset({"training data"})
    capabilities = Capabilities(accumulation="per micro-batch")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {
        "contrast": share(20, of=170),
        "encoding": encoding,
    }

    def __init__(
        self,
        temperature: float = 10.0,
        *,
        weight: float = 1.0,
        vote: float = 1.0,
        contrast: int | None = None,
        encoding: int | None = None,
    ) -> None:
        super().__init__()
        for what, value in {"temperature": temperature, "vote": vote}.items():
            if not 0 < value < math.inf:
                raise SetupError(f"DIMML({what}): expected a number above 0, found {value}")
        if not 0 <= weight < math.inf:
            raise SetupError(f"DIMML(weight): expected a number of 0 or more, found {weight}")
        for what, epochs in {"contrast": contrast, "encoding": encoding}.items():
            if epochs is not None and not (type(epochs) is int and epochs >= 1):
                raise SetupError(f"DIMML({what}): expected 1 epoch or more, found {epochs!r}")
        self.temperature = temperature
        self.weight = weight
        self.vote = vote
        self.contrast = contrast
        self.encoding = encoding
        self.readouts = Readouts()
        self.shared = nn.ModuleList()  # holds the classifier that all share
        self.register_buffer("chosen", torch.empty(0, dtype=torch.bool))  # (M, D), once known
        self._shape: tuple[int, ...] = ()
        self._fusing = False  # in this step
        self._fused = False  # whether the head has been trained at all

    chosen: Tensor

    def build(self, shapes: Shapes) -> None:
        widths = {name: vector_width(shape) for name, shape in shapes.features.items()}
        width = widths[self.names[0]]
        if len(set(widths.values())) > 1:
            raise SetupError(
                f"DIMML: expected features of one width for the classifier that all share, found "
                f"{widths}: let the encoders end in layers of the same width"
            )
        self.readouts.build(shapes, mix(self.seed, 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, 2))
            layer = nn.Linear(width, math.prod(shapes.logits), dtype=shapes.dtype)
        self.shared.append(layer)
        self._shape = shapes.logits
        self.chosen = torch.zeros(len(self.names), width, dtype=torch.bool)

    def objective(self, step: Step) -> dict[str, Tensor]:
        assert self.encoding is not None
        assert self.contrast is not None
        _, labelled = class_labels(step, "DIMML")
        self._fusing = step.epoch >= self.encoding
        if self._fusing:
            return {"joint": step.joint}
        (layer,) = self.shared
        logits: Mapping[str, Tensor] = self.readouts(step.features)
        terms = {"joint": step.logits.new_zeros(())}
        for name in self.names:
            own = step.loss(logits[name], modality=name)
            together = layer(self._vectors(step, name)).view(-1, *self._shape)
            terms[name] = own + self.weight * step.loss(together, modality=name)
        if step.epoch >= self.contrast:
            terms["contrast"] = self._contrast(step, counted(step, labelled))
        return terms

    def frozen(self) -> frozenset[str]:
        return frozenset(self.names) if self._fusing else frozenset({REST})

    def commit(self) -> None:
        self._fused = self._fused or self._fusing

    def end_epoch(self, run: Run) -> None:
        """Choose the dimensions, once: when the contrast begins with the next epoch."""
        if run.epoch + 1 == self.contrast and self.readouts.names:
            self.chosen = self._choose(run).to(self.chosen.device)

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of every modality's own classifier."""
        return self.readouts(step.features)  # type: ignore[no-any-return]

    def predict(self, step: Step) -> Tensor:
        """Return logits weighted by how sure they are."""
        alone = list(self.predict_unimodal(step).values())
        voting = [*alone, step.logits.view_as(alone[0])] if self._fused else alone
        return confidence_weighted(torch.stack(voting), self.vote)

    def get_extra_state(self) -> bool:
        return self._fused

    def set_extra_state(self, state: Any) -> None:
        self._fused = bool(state)

    # ------------------------------------------------------------------

    def _vectors(self, step: Step, name: str) -> Tensor:
        (layer,) = self.shared
        return feature_vectors(step.features[name]).to(layer.get_parameter("weight").dtype)

    def _contrast(self, step: Step, usable: Tensor | None) -> Tensor:
        vectors = [self._vectors(step, name) for name in self.names]
        losses = []
        for learner, teacher in itertools.permutations(range(len(self.names)), 2):
            alone = (self.chosen[teacher] & ~self.chosen[learner]).to(vectors[0].dtype)
            both = None if usable is None else usable[learner] & usable[teacher]
            losses.append(
                one_way_contrast(
                    vectors[learner] * alone, vectors[teacher] * alone, self.temperature, both
                )
            )
        return torch.stack(losses).sum() / (len(self.names) - 1)

    def _choose(self, run: Run) -> Tensor:
        """Return which dimensions tell the classes apart in each modality, shape ``(M, D)``."""
        size, width = len(self.names), self.chosen.shape[1]
        classes = math.prod(self._shape)
        sums = torch.zeros(size, classes, width, dtype=torch.float64)
        counts = torch.zeros(size, classes, dtype=torch.float64)
        for at, vectors, labels in self._samples(run):
            sums[at].index_add_(0, labels, vectors)
            counts[at] += torch.bincount(labels, minlength=classes)
        device = self.chosen.device
        sums, counts = run.summed(sums.to(device)).cpu(), run.summed(counts.to(device)).cpu()
        means = sums / counts.clamp(min=1)[..., None]
        right, seen = torch.zeros(size, width, dtype=torch.float64), counts.sum(dim=1)
        for at, vectors, labels in self._samples(run):
            found = nearest_classes(vectors, means[at], counts[at] > 0)
            right[at] += (found == labels[:, None]).sum(dim=0)
        correct = run.summed(right.to(device)) / seen.clamp(min=1)[:, None].to(device)
        return torch.stack([discriminative(of) for of in correct])

    def _samples(self, run: Run) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield position, features and labels of each modality, batch by batch."""
        assert run.train_loader is not None
        for step in run.steps(run.train_loader):
            labels, labelled = class_labels(step, "DIMML")
            rows = counted(step, labelled)
            for at, name in enumerate(self.names):
                vectors = at_least_single(self._vectors(step, name)).double().cpu()
                kept = slice(None) if rows is None else rows[at].cpu()
                yield at, vectors[kept], labels.cpu()[kept]
