"""On-the-fly prediction modulation: the modality that is ahead is dropped before the head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from equimodal.attach.features import scaled
from equimodal.errors import SetupError
from equimodal.evidence import Evidence
from equimodal.functional.opm import drop_probability, drop_scale
from equimodal.functional.remaining import anything_left
from equimodal.method import Capabilities, Method
from equimodal.methods.features.draws import Draws
from equimodal.noise import mix
from equimodal.planning import share
from equimodal.search import Linear, searched
from equimodal.step import Step


class OPM(Method):
    r"""Drop the feature of the modality that is ahead, in some samples (Wei et al., TPAMI 2024).

    .. math::
        z_{im} \leftarrow \frac{r_{im}}{1 - \Theta} z_{im}, \quad
        r_{im} \sim \mathrm{Bernoulli}(1 - q_m), \quad
        q_m = q_b (1 + \lambda \tanh(\rho_m - 1)) \text{ if } \rho_m > 1 \text{, else } 0

    :math:`\Theta = \sum_m d_m q_m / \sum_m d_m` with the widths d of the features. The ratios are
    those of OGM, of this very micro-batch and without gradients; the head then runs once more, on
    what is left, and its loss takes the place of the joint loss.

    Args:
        base: :math:`q_b`, the probability of dropping a modality that is hardly ahead, 0 to 1.
        strength: :math:`\lambda`, how much the probability grows with the ratio, 0 or more.
        execution: probability that a micro-batch is modulated at all, 0 to 1.
        warm_up: epochs of plain training before it acts; by default 6 in 100 of the training, as in
            the published code.
        last: the last epoch in which it acts, counted from 0; None for always.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "opm"
    search = searched(base=Linear(0.2, 0.8), strength=Linear(0.2, 1.0))
    source = "Wei et al., TPAMI 2024"
    needs = frozenset({"scores"})
    replaces_joint = True
    capabilities = Capabilities(accumulation="per micro-batch", order="drawn")
    by_epochs: ClassVar[Mapping[str, Callable[[int], object]]] = {
        "warm_up": share(6, of=100, least=0)
    }

    def __init__(
        self,
        base: float = 0.5,
        strength: float = 0.5,
        execution: float = 0.7,
        warm_up: int | None = None,
        last: int | None = None,
    ) -> None:
        super().__init__()
        for what, value, high in (
            ("base", base, 1.0),
            ("strength", strength, math.inf),
            ("execution", execution, 1.0),
        ):
            if not (0 <= value <= high and math.isfinite(value)):
                bound = "0 or more" if high == math.inf else "from 0 to 1"
                raise SetupError(f"OPM({what}): expected a number {bound}, found {value}")
        if not (warm_up is None or (isinstance(warm_up, int) and warm_up >= 0)):
            raise SetupError(
                f"OPM(warm_up): expected a number of epochs, 0 or more, found {warm_up}"
            )
        if last is not None and last < (warm_up or 0):
            raise SetupError(
                f"OPM(last): expected {warm_up} or more, the first epoch after warm_up={warm_up}, "
                f"found {last}"
            )
        self.base = base
        self.strength = strength
        self.execution = execution
        self.warm_up = warm_up
        self.last = last
        self.window = (warm_up or 0, last)
        self.draws = Draws()

    def plan(self, epochs: int | None) -> None:
        super().plan(epochs)
        assert self.warm_up is not None
        self.window = (self.warm_up, self.last)

    def objective(self, step: Step) -> dict[str, Tensor]:
        # Decided on the host, so that no device has to be waited for; numbers are drawn for every
        # sample, modulated or not, so that their count says which come next.
        modulated = mix(self.seed, 2, self.draws.count) < self.execution * 2**32
        numbers = self.draws.take(step.size, len(self.names), mix(self.seed, 1), step.logits.device)
        if not modulated:
            return {"joint": step.joint}
        log_scores, samples = step.log_scores()
        ratios = Evidence(self.names, log_scores, [samples]).ratios
        probabilities = drop_probability(ratios, self.base, self.strength)
        keep = dict(zip(self.names, (numbers >= probabilities).unbind(1), strict=True))
        widths = [step.features[name].shape[1:].numel() for name in self.names]
        scale = drop_scale(probabilities, widths)
        factors = {name: kept * scale for name, kept in keep.items()}
        logits = step.head(scaled(step.gated, factors))
        # Whoever is last is never dropped: only a modality that is missing leaves nothing behind.
        weight = anything_left(keep, step.present) if step.present else None
        return {"joint": step.loss(logits, weight=weight)}
