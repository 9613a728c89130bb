"""Samples split between the modalities, and batches of one modality each."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.data_remixing import least_separable
from equimodal.method import Capabilities, Method, Order
from equimodal.methods.data.valuation import checked_samples
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.readout import Readouts
from equimodal.step import Shapes, Step

SHUFFLE = 104  # so that draws for different purposes have different seeds


class DataRemixing(Method):
    r"""Train each sample with the modality that separates it worst alone (Ma et al., ICML 2025).

    .. math::
        m_i = \arg\min_m \mathrm{KL}(\mathrm{softmax}(u_i^m) \,\|\, \text{uniform}), \quad
        L = L(f, y) + w\, L(u^{m}, y)

    After the warm-up, a pass over the training data at the end of every epoch reads each modality
    by a linear classifier u of the method's own, and leaves every sample with one modality; the
    features of the others are 0. A batch holds samples of one modality only, so that the gradients
    of modalities do not meet in it; batches of the modalities take turns, so that an epoch does not
    end with one of them. The size of an epoch stays the same.

    In the warm-up all modalities are trained as usual, with the losses of all classifiers.

    Args:
        warm_up: epochs before the first that is remixed, at least 1; by default 10 in 60 of the
            training, as in the released code.
        unimodal: weight w of the unimodal loss after the warm-up.
        warm_up_unimodal: weight of the unimodal losses in the warm-up.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "data-remixing"
    source = "Ma et al., ICML 2025"
    needs = frozenset({"training data", "sample identities"})
    capabilities = Capabilities(accumulation="per micro-batch", compiled=False)
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"warm_up": share(10, of=60)}

    def __init__(
        self, warm_up: int | None = None, unimodal: float = 1.0, warm_up_unimodal: float = 0.5
    ) -> None:
        super().__init__()
        if warm_up is not None and warm_up < 1:
            raise SetupError(
                f"DataRemixing(warm_up): expected 1 or more epochs, found {warm_up}: samples are "
                "split by classifiers that have to be trained first"
            )
        for what, weight in {"unimodal": unimodal, "warm_up_unimodal": warm_up_unimodal}.items():
            if not 0 <= weight < float("inf"):
                raise SetupError(
                    f"DataRemixing({what}): expected a weight of 0 or more, found {weight}"
                )
        self.warm_up = warm_up
        self.unimodal = unimodal
        self.warm_up_unimodal = warm_up_unimodal
        self.readouts = Readouts()
        self._remaining: Tensor | None = None

    def build(self, shapes: Shapes) -> None:
        if len(shapes.logits) != 1 or shapes.logits[0] < 2:
            raise SetupError(
                "DataRemixing is defined for one class per sample: expected logits of two or more "
                f"classes, shape (B, C), found (B, {', '.join(map(str, shapes.logits))})"
            )
        self.readouts.build(shapes, mix(self.seed, 1))

    def order(self, samples: int, epoch: int) -> Order | None:
        """Return the samples of each modality, shuffled, in batches that take turns."""
        assert self.warm_up is not None
        if epoch < self.warm_up or self._remaining is None:
            return None
        checked_samples("DataRemixing", len(self._remaining), samples)
        parts = []
        for name in sorted(self.names):  # whoever is named first in `encoders` must not matter
            number = zlib.crc32(name.encode())
            generator = torch.Generator().manual_seed(mix(self.seed, SHUFFLE, epoch, number))
            part = (self._remaining == self.names.index(name)).nonzero().flatten()
            parts.append(part[torch.randperm(len(part), generator=generator)])
        indices = torch.cat(parts)
        keep = {name: self._remaining[indices] == at for at, name in enumerate(self.names)}
        return Order(indices.tolist(), keep, [len(part) for part in parts], dealt=True)

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits: Mapping[str, Tensor] = self.readouts(step.features)
        assert self.warm_up is not None
        weight = self.warm_up_unimodal if step.epoch < self.warm_up else self.unimodal
        return {
            name: weight * step.loss(logits[name], modality=name) for name in self._trained(step)
        }

    def end_epoch(self, run: Run) -> None:
        """Split the samples anew for the next epoch."""
        assert self.warm_up is not None
        if run.epoch + 1 < self.warm_up:
            return
        assert run.train_loader is not None
        split = []
        for step in run.steps(run.train_loader, identify=True):
            logits: Mapping[str, Tensor] = self.readouts(step.features)
            stacked = torch.stack([logits[name] for name in self.names])
            everyone = torch.ones(step.size, dtype=torch.bool, device=stacked.device)
            here = [step.present.get(name, everyone).to(stacked.device) for name in self.names]
            split.append(least_separable(stacked, torch.stack(here)))
        self._remaining = run.shared(torch.cat(split)).cpu()

    def get_extra_state(self) -> dict[str, Tensor | None]:
        return {"remaining": self._remaining}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._remaining = state["remaining"]

    # ------------------------------------------------------------------

    def _trained(self, step: Step) -> tuple[str, ...]:
        """Return the modalities that this batch trains.

        The classifiers of the others are not part of the loss: a gradient of zero would still let
        momentum and weight decay move them. The positions are on the CPU, so that nothing waits.
        """
        assert self.warm_up is not None
        if step.epoch < self.warm_up or self._remaining is None or step.indices is None:
            return self.names
        found = self._remaining[step.indices]
        return tuple(name for at, name in enumerate(self.names) if bool((found == at).any()))
