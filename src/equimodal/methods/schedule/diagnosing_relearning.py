"""Encoders that separate training data better than held-out data go back and learn again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.kmeans import kmeans
from equimodal.functional.relearning import purity, relearning_strength, scale_columns, soften
from equimodal.method import Method
from equimodal.methods.labels import class_labels
from equimodal.modalities import OwnedParameter
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.readout import feature_vectors
from equimodal.search import Log, searched


class DiagnosingRelearning(Method):
    r"""Diagnosing & Re-learning, D&R (Wei et al., ECCV 2024).

    .. math::
        \theta_m \leftarrow \alpha_m \theta_m^{init} + (1 - \alpha_m) \theta_m, \quad
        \alpha_m = \tanh(\lambda |P_m^{train} - P_m^{held\,out}|)

    The purity :math:`P_m` says how well the features of modality m separate the classes: they are
    grouped by k-means into as many groups as there are classes, and every group speaks for its most
    frequent class. A gap between training and held-out data says that the encoder learned what does
    not generalise, and it goes back by as much. Every encoder is judged, the leading one too.

    The initial weights are those before the first step that the balancer sees. BatchNorm's running
    statistics are left as they are. After the last epoch of training nobody would learn again, so
    that nothing goes back then: the method asks for the length of training.

    Args:
        strength: lambda, at least 0.
        every: how many epochs lie between two diagnoses, 1 or more; by default 20 in 90 of the
            training, as in the released code.
        times: how many diagnoses in all, 1 or more.
        restarts: starts of k-means, drawn by k-means++; the best one counts.
        reset_momentum: whether what the optimizer remembers of an encoder is forgotten with it; the
            released code leaves it.

    Attributes:
        alphas: how far each encoder went back at the latest diagnosis, shape ``(M,)``.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "diagnosing-relearning"
    search = searched(strength=Log(1.0, 10.0))
    source = "Wei et al., ECCV 2024"
    needs = frozenset({"training data", "held-out data", "length of training"})
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"every": share(20, of=90)}

    def __init__(
        self,
        strength: float = 3.0,
        *,
        every: int | None = None,
        times: int = 3,
        restarts: int = 10,
        reset_momentum: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= strength < math.inf:
            raise SetupError(
                f"DiagnosingRelearning(strength): expected a number of 0 or more, found {strength}"
            )
        for what, count in (
            ("every", 1 if every is None else every),
            ("times", times),
            ("restarts", restarts),
        ):
            if count < 1:
                raise SetupError(f"DiagnosingRelearning({what}): expected 1 or more, found {count}")
        self.strength = strength
        self.every = every
        self.times = times
        self.restarts = restarts
        self.reset_momentum = reset_momentum
        self.register_buffer("alphas", torch.zeros(0, dtype=torch.float64))
        self._initial: dict[str, Tensor] = {}  # by the name of the parameter in the model

    alphas: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self.alphas = torch.zeros(len(names), dtype=torch.float64)

    def adjust(
        self, modality: str, parameters: Sequence[OwnedParameter], evidence: Evidence
    ) -> None:
        """Keep what a parameter was before its first step."""
        for owned in parameters:
            if owned.name not in self._initial:
                self._initial[owned.name] = owned.parameter.detach().clone()

    def end_epoch(self, run: Run) -> None:
        assert self.every is not None
        diagnosis, rest = divmod(run.epoch + 1, self.every)
        if rest or diagnosis > self.times or self.ends(run.epoch):
            return
        assert run.train_loader is not None
        assert run.val_loader is not None
        train = self._purities(run, run.train_loader)
        held_out = self._purities(run, run.val_loader)
        self.alphas = relearning_strength(train, held_out, self.strength).to(self.alphas.device)
        for name, alpha in zip(run.names, self.alphas, strict=True):
            self._go_back(run, name, alpha)

    def get_extra_state(self) -> dict[str, Tensor]:
        return dict(self._initial)

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self._initial = dict(state)

    @torch.no_grad()
    def _go_back(self, run: Run, name: str, alpha: Tensor) -> None:
        for owned in run.parameters(name):
            initial = self._initial.get(owned.name)
            if initial is not None:  # a parameter that was never trained has nothing to go back to
                parameter = owned.parameter
                parameter.copy_(soften(parameter, initial.to(parameter), alpha.to(parameter)))
        if self.reset_momentum:
            run.reset_optimizer(name)

    def _purities(self, run: Run, loader: Iterable[Any]) -> Tensor:
        """Return the purity of every modality's features, shape ``(M,)``.

        Every rank groups what its own loader gives; the mean over the ranks counts.
        """
        features: dict[str, list[Tensor]] = {name: [] for name in run.names}
        targets: dict[str, list[Tensor]] = {name: [] for name in run.names}
        classes = 0
        for step in run.steps(loader):
            labels, labelled = class_labels(step, "DiagnosingRelearning")
            everyone = torch.ones_like(labels, dtype=torch.bool)
            counted = everyone if labelled is None else labelled
            classes = step.logits.shape[1]
            for name, kept in features.items():
                there = counted & step.present.get(name, everyone).to(counted.device)
                targets[name].append(labels[there])
                vectors = feature_vectors(step.features[name])[there]
                kept.append(vectors.to(torch.promote_types(vectors.dtype, torch.float32)))
        if not classes:
            raise SetupError(
                "DiagnosingRelearning: a loader gave no batch between epochs: expected one that "
                "can be passed over again after every epoch, and not an iterator"
            )
        found = torch.stack(
            [
                purity(self._groups(run, torch.cat(kept), classes), torch.cat(of), classes)
                for kept, of in zip(features.values(), targets.values(), strict=True)
            ]
        )
        return run.summed(found) / run.summed(torch.ones_like(found))

    def _groups(self, run: Run, features: Tensor, classes: int) -> Tensor:
        seed = mix(self.seed, run.epoch)
        return kmeans(scale_columns(features), classes, seed, self.restarts)
