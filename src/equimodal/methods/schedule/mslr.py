"""A learning rate for each modality: constant, or following its held-out accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

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
        frozen: by modality the spans of optimizer steps, (first, last), counted from 0 and both
            included, in which its encoder is left exactly alone: no weight decay, no momentum, and
            the optimizer's state stays. That is ours. Steps that an overflow or the loop leaves out
            do not count.

    Raises:
        SetupError: a factor is negative or not finite, a span is none, or a modality is unknown.
    """

    name = "mslr"
    search = searched(factors=EachModality(0.1, 0.3))
    source = "Yao and Mihalcea, ACL Findings 2022"

    def __init__(
        self,
        factors: Mapping[str, float],
        *,
        space: Space = "update",
        frozen: Mapping[str, Sequence[tuple[int, int]]] | None = None,
    ) -> None:
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
        self.spans = {name: _checked(name, spans) for name, spans in (frozen or {}).items()}
        self._taken = 0  # as `taken`, which may be on a device that is not to be waited for
        if self.spans:
            self.register_buffer("taken", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(_count_anew)  # type: ignore[no-untyped-call]

    rates: Tensor
    taken: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        for name in self.spans:
            if name not in names:
                raise SetupError("MSLR(frozen): " + unknown("modality", name, names))
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

    def frozen(self) -> frozenset[str]:
        now = self._taken
        return frozenset(
            name
            for name, spans in self.spans.items()
            if any(first <= now <= last for first, last in spans)
        )

    def commit(self) -> None:
        if self.spans:
            self._taken += 1
            self.taken += 1


def _checked(name: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans of a modality as they are to be used."""
    found = [tuple(span) if isinstance(span, Sequence) else (span,) for span in spans]
    for span in found:
        whole = len(span) == 2 and all(type(step) is int for step in span)
        if not whole or not 0 <= span[0] <= span[1]:
            raise SetupError(
                "MSLR(frozen): expected spans of steps, (first, last) with 0 <= first <= last, "
                f"such as {{{name!r}: [(0, 99)]}}, found {span} for {name}"
            )
    return [(first, last) for first, last in found]


def _count_anew(method: nn.Module, keys: object) -> None:
    assert isinstance(method, MSLR)
    method._taken = int(method.taken)


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
