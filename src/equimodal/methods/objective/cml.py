"""A penalty on confidence that rises when a modality is taken away."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.cml import confidence_excess
from equimodal.method import Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.noise import mix
from equimodal.scores import evaluation
from equimodal.search import Log, searched
from equimodal.step import Step


class CML(Method):
    r"""Keep confidence from rising when a modality is removed (Ma et al., ICML 2023).

    .. math:: L = L(f, y) + \beta \frac{1}{B} \sum_i \sum_{k=1}^{M-1}
        g_{ik} \max\big(0,\; \mathrm{conf}(T_k)_i - \mathrm{conf}(T_{k-1})_i\big)

    :math:`T_0 \supset T_1 \supset \dots` is a chain that loses one modality at a time, in an order
    drawn anew for every optimizer step; conf is the largest class probability. A removed modality
    has a feature of zeros. The gate g is that of `equimodal.functional.confidence_excess`.

    The head runs once more for every removed modality, in evaluation mode, so that its BatchNorm,
    dropout and random state do not notice. For classification.

    Args:
        beta: weight of the penalty, 0 or more. The released code sums over the batch: its 10 is
            ``10 * batch_size`` here.

    Raises:
        SetupError: beta is negative.
    """

    name = "cml"
    search = searched(beta=Log(1.0, 30.0))
    source = "Ma et al., ICML 2023"
    capabilities = Capabilities(order="drawn")

    def __init__(self, beta: float = 10.0) -> None:
        super().__init__()
        if not 0 <= beta < math.inf:
            raise SetupError(f"CML(beta): expected a number of 0 or more, found {beta}")
        self.beta = beta
        self._drawn = 0  # on the host: a tensor would have to be waited for

    def objective(self, step: Step) -> dict[str, Tensor]:
        labels, has_label = class_labels(step, "CML")
        present = counted(step)
        features: dict[str, Tensor] = dict(step.gated)
        precision = step.shapes.dtype
        superset = step.logits.to(precision)
        penalty = superset.new_zeros(step.size)
        removed = self.removals(step.epoch)
        for position, name in enumerate(removed):
            features[name] = torch.zeros_like(features[name])
            with evaluation(step.boundary):
                subset = step.head(features).to(precision)
            excess = confidence_excess(subset, superset, labels)
            if present is not None:
                excess = excess * _changed(present, self.names, removed[: position + 1])
            penalty = penalty + excess
            superset = subset
        if has_label is not None:
            penalty = penalty * has_label
        return {"confidence": self.beta * penalty.mean()}

    def removals(self, epoch: int) -> list[str]:
        """Return the modalities that the chain of this optimizer step loses, in order."""
        generator = torch.Generator().manual_seed(mix(self.seed, epoch, self._drawn))
        order = torch.randperm(len(self.names), generator=generator)[:-1]
        return [self.names[index] for index in order.tolist()]

    def commit(self) -> None:
        # Once per optimizer step, so that all micro-batches and ranks of a step share one chain.
        self._drawn += 1

    def get_extra_state(self) -> int:
        return self._drawn

    def set_extra_state(self, state: int) -> None:
        self._drawn = state


def _changed(present: Tensor, names: tuple[str, ...], removed: list[str]) -> Tensor:
    """Return where the last removal takes something away and leaves something, shape ``(B,)``.

    Args:
        present: which samples have which modality, shape ``(M, B)``, bool.
        names: the modalities.
        removed: those that are gone, the last one just now; not all of them.
    """
    left = [row for name, row in zip(names, present, strict=True) if name not in removed]
    return present[names.index(removed[-1])] & torch.stack(left).any(dim=0)
