"""A learning rate for each modality: constant, or following its held-out accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError, unknown
from equimodal.evidence import Evidence
from equimodal.functional.mslr import relative_accuracy
from equimodal.method import Method, Space
from equimodal.methods.held_out import accuracies
from equimodal.methods.labels import refuse_numbers
from equimodal.search import EachModality, searched
from equimodal.step import Shapes


class MSLR(Method):
    r"""Give every encoder a learning rate of its own (Yao and Mihalcea, ACL Findings 2022).

    .. math:: \eta_m = c_m \, \eta

    What the optimizer makes of an encoder's gradient is multiplied by its factor: under SGD that is
    a learning rate of c times the user's, weight decay and momentum included, and Adam does not
    cancel it. The user's schedule still counts.

    Args:
        factors: by modality, 0 or more; 1 for those that are left out.
        space: "update", or "gradient" as the code of AGM's repository does.

    Raises:
        SetupError: a factor is negative or not finite, or of an unknown modality.
    """

    name = "mslr"
    search = searched(factors=EachModality(0.1, 0.3))
    source = "Yao and Mihalcea, ACL Findings 2022"

    def __init__(self, factors: Mapping[str, float], *, space: Space = "update") -> None:
        super().__init__()
        for name, factor in factors.items():
            if not 0 <= factor < math.inf:
                raise SetupError(
                    f"{type(self).__name__}(factors): expected a number of 0 or more for {name}, "
                    f"found {factor}"
                )
        if space not in ("gradient", "update"):
            raise SetupError(unknown("space", str(space), ("gradient", "update")))
        self.factors = dict(factors)
        self.space = space
        self.register_buffer("rates", torch.empty(0))

    rates: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        for name in self.factors:
            if name not in names:
                raise SetupError(
                    f"{type(self).__name__}(factors): " + unknown("modality", name, names)
                )

    def build(self, shapes: Shapes) -> None:
        given = [self.factors.get(name, 1.0) for name in self.names]
        self.rates = torch.tensor(given, dtype=shapes.dtype)

    def coefficients(self, evidence: Evidence) -> Tensor:
        return self.rates


class DynamicMSLR(MSLR):
    r"""MSLR that follows the accuracy of every modality alone on held-out data.

    .. math:: \eta_m = c_m \, \eta \, \frac{a_m(e)}{\frac{1}{W} \sum_{w=0}^{W-1} a_m(e - w)}

    A modality that still gets better is sped up, one whose accuracy falls is slowed down. In the
    first W epochs the rates are those of `MSLR`.

    Args:
        factors: see `MSLR`; all 1 by default.
        epochs: W, how many of the latest epochs the mean is over, 2 or more.
        space: see `MSLR`.
    """

    name = "dynamic-mslr"
    needs = frozenset({"held-out data"})

    def __init__(
        self,
        factors: Mapping[str, float] | None = None,
        *,
        epochs: int = 5,
        space: Space = "update",
    ) -> None:
        super().__init__(factors or {}, space=space)
        if epochs < 2:
            raise SetupError(f"DynamicMSLR(epochs): expected 2 or more, found {epochs}")
        self.epochs = epochs
        self.register_buffer("history", torch.empty(0))

    history: Tensor

    def build(self, shapes: Shapes) -> None:
        refuse_numbers(shapes, "DynamicMSLR")
        super().build(shapes)
        self.history = torch.full((self.epochs, len(self.names)), math.nan, dtype=shapes.dtype)

    def coefficients(self, evidence: Evidence) -> Tensor:
        return self.rates * relative_accuracy(self.history)

    def end_epoch(self, run: Run) -> None:
        assert run.val_loader is not None
        now = accuracies(run, run.val_loader, run.unimodal, "DynamicMSLR").to(self.history)
        self.history = torch.cat([self.history[1:], now[None]])
