"""Leading encoders held back in the epochs in which they take up most."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from equimodal.errors import SetupError, unknown
from equimodal.evidence import Evidence
from equimodal.functional.inforeg import holding_strength, prime_indicator, score_gap
from equimodal.method import Method
from equimodal.modalities import OwnedParameter, weights
from equimodal.planning import share
from equimodal.search import Linear, searched
from equimodal.step import Shapes, Step
from equimodal.update.sparse import refuse_sparse

if TYPE_CHECKING:
    from equimodal.epochs.run import Run


class InfoReg(Method):
    r"""Regulate how much information the leading encoder takes up in its prime learning window.

    .. math::
        L = \ell(f, y) + \sum_m \ell(u_m, y), \qquad
        g_m \leftarrow g_m + \beta_m (\theta_m - \theta_m^{(e)})

    The encoders that are ahead are pulled to where they were when the epoch began, with a strength
    :math:`\beta = c\, e^{gap}` that grows with their lead, as long as an epoch still adds much to
    the trace of the Fisher information, which the squared gradients estimate (Huang et al., CVPR
    2025).

    Args:
        strength: the constant c, 0 or more: one for all, or one for each modality by name.
        threshold: the share of information that an epoch must add, for the pull to act.
        history: of how many epochs information is averaged, 1 or more; by default 10 in 50 of the
            training, as in the released code.
        traced: the modality whose information decides for all, as in the released code, or None to
            judge each by its own.

    Raises:
        SetupError: an argument is out of its range, or of an unknown modality.
    """

    name = "inforeg"
    search = searched(strength=Linear(0.2, 1.5))
    source = "Huang et al., CVPR 2025"
    needs = frozenset({"scores"})
    modulates = False
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {"history": share(10, of=50)}

    def __init__(
        self,
        strength: float | Mapping[str, float] = 0.95,
        *,
        threshold: float = 0.05,
        history: int | None = None,
        traced: str | None = None,
    ) -> None:
        super().__init__()
        given = strength if isinstance(strength, Mapping) else {"every modality": strength}
        for what, value in given.items():
            if not 0 <= value < math.inf:
                raise SetupError(f"InfoReg(strength): expected 0 or more for {what}, found {value}")
        if not math.isfinite(threshold):
            raise SetupError(f"InfoReg(threshold): expected a number, found {threshold}")
        if history is not None and history < 1:
            raise SetupError(f"InfoReg(history): expected 1 epoch or more, found {history}")
        self.strength = dict(strength) if isinstance(strength, Mapping) else strength
        self.threshold = threshold
        self.history = history
        self.traced = traced
        self.register_buffer("traces", torch.empty(0))
        self.register_buffer("trace", torch.empty(0))
        self.register_buffer("indicators", torch.empty(0))
        self._starts: dict[str, Tensor] = {}
        self._pulls: Tensor | None = None  # of the step that is being judged
        self._proposed: dict[str, Tensor] = {}

    traces: Tensor
    trace: Tensor
    indicators: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        for name in self.strength if isinstance(self.strength, Mapping) else ():
            if name not in names:
                raise SetupError("InfoReg(strength): " + unknown("modality", name, names))
        if self.traced is not None and self.traced not in names:
            raise SetupError("InfoReg(traced): " + unknown("modality", self.traced, names))

    def build(self, shapes: Shapes) -> None:
        size = len(self.names)
        assert self.history is not None
        self.traces = torch.zeros(size, self.history, dtype=shapes.dtype)
        self.trace = torch.zeros(size, dtype=shapes.dtype)
        self.indicators = torch.ones(size, dtype=shapes.dtype)  # the first epoch is prime

    def objective(self, step: Step) -> dict[str, Tensor]:
        return {n: step.loss(step.unimodal[n], modality=n) for n in self.names}

    def coefficients(self, evidence: Evidence) -> None:
        self._proposed = {}  # of a step that was skipped
        # Sums over the batch, as the released code compares; per sample where some have no modality
        scores = evidence.log_means.exp() * evidence.counts.max()
        gaps = score_gap(torch.where(evidence.counts > 0, scores, math.nan))
        self._pulls = holding_strength(
            gaps, self.indicators.to(gaps), self._strengths(gaps), self.threshold
        )

    def adjust(
        self, modality: str, parameters: Sequence[OwnedParameter], evidence: Evidence
    ) -> None:
        assert self._pulls is not None
        for owned in parameters:
            refuse_sparse(owned, "InfoReg squares and pulls whole gradients")
        moved = [owned for owned in parameters if owned.parameter.grad is not None]
        gradients = [o.parameter.grad for o in moved if o.parameter.grad is not None]
        for owned in parameters:
            if owned.name not in self._starts:
                self._starts[owned.name] = owned.parameter.detach().clone()
        if moved:
            values = [owned.parameter.detach() for owned in moved]
            starts = [self._starts[owned.name].to(owned.parameter) for owned in moved]
            pulls = torch._foreach_sub(values, starts)
            torch._foreach_mul_(pulls, self._pulls[self.names.index(modality)].to(values[0].dtype))
            torch._foreach_add_(gradients, pulls)
        squares = [  # the pull included, as in the released code
            gradient.square().mean()
            for owned, gradient in zip(moved, gradients, strict=True)
            if weights(owned)
        ]
        if squares:
            self._proposed[modality] = torch.stack(squares).sum()

    def commit(self) -> None:
        for name, added in self._proposed.items():
            self.trace[self.names.index(name)] += added
        self._proposed = {}

    def end_epoch(self, run: Run) -> None:
        traces = torch.cat([self.traces, self.trace[:, None]], dim=1)
        indicators = prime_indicator(traces)
        if self.traced is not None:
            indicators = indicators[self.names.index(self.traced)].expand(len(self.names)).clone()
        self.traces, self.indicators = traces[:, 1:].contiguous(), indicators
        self.trace = torch.zeros_like(self.trace)
        self._starts = {}

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the encoders' parameters at the start of this epoch."""
        return self._starts

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `get_extra_state` returned."""
        self._starts = dict(state)

    def _strengths(self, like: Tensor) -> Tensor:
        given = self.strength
        values = [given.get(n, 0.0) if isinstance(given, Mapping) else given for n in self.names]
        return like.new_tensor(values)
