"""Early stopping for each modality by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.functional.mses import patience_spent
from equimodal.method import Method
from equimodal.methods.held_out import losses
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class MSES(Method):
    r"""Stop the encoder of a modality when it overfits (Fujimori et al., ACPR 2019).

    .. math:: L = L(f, y) + w \sum_{m \text{ not stopped}} L(u_m, y), \quad u_m = W_m z_m + b_m

    Every modality has a linear classifier of the method's own, trained alongside. When its loss on
    held-out data has not fallen for `patience` epochs, the encoder and its classifier stay as they
    are for good, or go back to where that loss was smallest. The others, and the model's own head,
    are trained on.

    Args:
        patience: epochs without a smaller loss before a modality stops, 1 or more.
        unimodal: weight w of the unimodal losses, above 0.
        smoothing: weight of the previous epoch's held-out loss in what is compared, at least 0 and
            below 1; 0 takes each epoch as it is.
        restore: whether a modality that stops goes back to its best epoch: encoder (BatchNorm's
            running statistics included) and classifier. Keeps a copy of every encoder. Not after
            the last epoch, when nobody trains the others on: it asks for the length of training.

    Attributes:
        stopped: the modalities that have stopped, in the model's order.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "mses"
    search = searched(unimodal=Log(0.3, 2.0))
    source = "Fujimori et al., ACPR 2019"
    needs = frozenset({"held-out data"})

    def __init__(
        self,
        patience: int = 5,
        *,
        unimodal: float = 1.0,
        smoothing: float = 0.0,
        restore: bool = False,
    ) -> None:
        super().__init__()
        if patience < 1:
            raise SetupError(f"MSES(patience): expected 1 or more epochs, found {patience}")
        if not 0 < unimodal < math.inf:
            raise SetupError(f"MSES(unimodal): expected a weight above 0, found {unimodal}")
        if not 0 <= smoothing < 1:
            raise SetupError(
                f"MSES(smoothing): expected a number of 0 or more and below 1, found {smoothing}"
            )
        self.patience = patience
        self.unimodal = unimodal
        self.smoothing = smoothing
        self.restore = restore
        if restore:
            self.needs = self.needs | {"length of training"}  # type: ignore[misc]
        self.readouts = Readouts()
        self.register_buffer("best", torch.empty(0))
        self.register_buffer("waited", torch.empty(0))
        self.register_buffer("previous", torch.empty(0))
        self._stopped: frozenset[str] = frozenset()
        self._kept: dict[str, list[Tensor]] = {}  # at the best epoch of each modality

    best: Tensor
    waited: Tensor
    previous: Tensor

    @property
    def stopped(self) -> tuple[str, ...]:
        """The modalities that have stopped."""
        return tuple(name for name in self.names if name in self._stopped)

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))
        self.best = torch.full((len(self.names),), math.inf, dtype=shapes.dtype)
        self.waited = torch.zeros(len(self.names), dtype=torch.int64)
        self.previous = torch.full_like(self.best, math.nan)

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        return {
            name: self.unimodal * step.loss(logits[name], modality=name)
            for name in self.names
            if name not in self._stopped
        }

    def frozen(self) -> frozenset[str]:
        return self._stopped

    def end_epoch(self, run: Run) -> None:
        assert run.val_loader is not None
        if len(self._stopped) == len(self.names):
            return
        now = losses(run, run.val_loader, lambda step: self.readouts(step.features)).to(self.best)
        smoothed = torch.lerp(now, self.previous, self.smoothing)
        compared = torch.where(self.previous.isnan(), now, smoothed)
        self.previous = now
        before = self.best
        self.best, self.waited, spent = patience_spent(before, self.waited, compared, self.patience)
        for name, improved, stops in zip(
            self.names, (self.best < before).tolist(), spent.tolist(), strict=True
        ):
            if name in self._stopped:
                continue
            if stops:
                self._stopped |= {name}
            if self.restore and improved:
                self._kept[name] = [t.detach().clone() for t in self._tensors(run, name)]
            elif stops and name in self._kept and not self.ends(run.epoch):
                self._put_back(run, name)

    def get_extra_state(self) -> dict[str, Any]:
        return {"stopped": list(self.stopped), "kept": dict(self._kept)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self._stopped = frozenset(state["stopped"])
        self._kept = dict(state["kept"])

    @torch.no_grad()
    def _put_back(self, run: Run, name: str) -> None:
        tensors = self._tensors(run, name)
        for tensor, kept in zip(tensors, self._kept.pop(name), strict=True):
            tensor.copy_(kept)

    def _tensors(self, run: Run, name: str) -> list[Tensor]:
        """Return all that goes back with a modality: encoder, running statistics, classifier."""
        layer: nn.Module = self.readouts.layers[self.readouts.names.index(name)]
        encoder = [owned.parameter for owned in run.parameters(name)]
        return [*encoder, *run.buffers(name), *layer.parameters()]
