"""Total correlation in place of the joint loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import MatchError, SetupError
from equimodal.functional import tcmax
from equimodal.functional.precision import at_least_single
from equimodal.method import Capabilities, Method
from equimodal.methods.labels import class_labels
from equimodal.methods.objective.counted import counted
from equimodal.scores import Split
from equimodal.step import Step
from equimodal.update.noise import mix


class TCMax(Method):
    r"""Maximise the total correlation of features and label (Yu et al., ICLR 2026).

    .. math::
        L = -\frac{1}{B} \sum_i f(z_i^1, \dots, z_i^M)_{y_i}
            + \log \frac{1}{B^M |Y|} \sum_{j_1, \dots, j_M, y'}
            e^{f(z_{j_1}^1, \dots, z_{j_M}^M)_{y'}}

    Cross-entropy compares a sample's true class with its other classes; this also compares it with
    combinations of features that belong to different samples. The loss takes the place of the
    user's, which is used only for samples that lack a modality.

    For a head that adds up one term per modality, as a linear head on concatenated features does,
    all combinations are summed exactly at the cost of a batch. Any other head runs on them.

    Args:
        negatives: how many random combinations to draw per micro-batch, at least 1; all of them by
            default. A head that does not add up runs on B^M combinations then.

    Raises:
        SetupError: `negatives` is no whole number of 1 or more.
    """

    name = "tcmax"
    source = "Yu et al., ICLR 2026"
    replaces_joint = True
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(self, negatives: int | None = None) -> None:
        super().__init__()
        if negatives is not None and not (type(negatives) is int and negatives >= 1):
            raise SetupError(
                f"TCMax(negatives): expected a whole number of 1 or more, or None for all "
                f"combinations, found {negatives!r}"
            )
        self.negatives = negatives
        self._draws = 0
        # Decided at the first step; in a tuple, so that it is no submodule of this one.
        self._additive: tuple[tuple[Split, float], ...] | None = None

    def objective(self, step: Step) -> dict[str, Tensor]:
        labels, labelled = class_labels(step, "TCMax")
        if step.criterion.outputs.kind != "logits":
            raise MatchError(
                "TCMax compares logits of different samples, and the model returns "
                f"{step.criterion.outputs.kind}, which are the same for logits of any height: let "
                "it return logits, and take cross-entropy"
            )
        logits = at_least_single(step.logits)
        positives = logits.gather(1, labels[:, None]).squeeze(1)
        log_mean = self._log_mean(step)
        rows = counted(step, labelled)
        if rows is None:
            return {"joint": tcmax.total_correlation_loss(positives, log_mean)}
        complete = rows.all(dim=0)
        if labelled is None:
            labelled = torch.ones_like(labels, dtype=torch.bool)
        share = complete.sum().to(logits.dtype) / labelled.sum().clamp(min=1)
        correlation = tcmax.total_correlation_loss(positives, log_mean, complete)
        rest = step.loss(step.logits, weight=labelled & ~complete)
        return {"joint": share * correlation + (1 - share) * rest}

    def get_extra_state(self) -> dict[str, int]:
        return {"draws": self._draws}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._draws = int(state["draws"])

    # ------------------------------------------------------------------

    def _log_mean(self, step: Step) -> Tensor:
        """Return the logarithm of the mean exponential over combinations of samples."""
        present = counted(step)
        unimodal = self._split(step)
        if unimodal is not None and self.negatives is None:
            return tcmax.additive_log_mean_exp(unimodal, present)
        chosen = self._combinations(len(step.names), step.size).to(step.logits.device)
        if unimodal is not None:
            logits = torch.stack([u[of] for u, of in zip(unimodal, chosen, strict=True)]).sum(0)
        else:
            pairs = zip(step.names, chosen, strict=True)
            logits = at_least_single(step.head({name: step.gated[name][of] for name, of in pairs}))
        valid = None if present is None else present.gather(1, chosen).all(dim=0)
        return tcmax.log_mean_exp(logits, valid)

    def _combinations(self, modalities: int, samples: int) -> Tensor:
        """Return which sample each modality is taken from, shape ``(M, N)``."""
        if self.negatives is None:
            return torch.cartesian_prod(*[torch.arange(samples)] * modalities).T
        generator = torch.Generator().manual_seed(mix(self.seed, self._draws))
        self._draws += 1
        return torch.randint(samples, (modalities, self.negatives), generator=generator)

    def _split(self, step: Step) -> Tensor | None:
        """Return logits that add up to the head's, shape ``(M, B, C)``, or None."""
        # Outside of autocast, features in half precision do not go with the head's weights.
        dtype = next((p.dtype for p in step.boundary.parameters()), step.logits.dtype)
        cast = replace(step, features={n: f.to(dtype) for n, f in step.gated.items()}, gates=None)
        if self._additive is None:
            self._additive = _additive(cast)
        for split, factor in self._additive:
            logits = split.logits(cast)
            return factor * torch.stack([at_least_single(logits[name]) for name in step.names])
        return None


@torch.no_grad()
def _additive(step: Step) -> tuple[tuple[Split, float], ...]:
    """Return how to split the head into terms that add up to it, if it has such a split.

    Classifiers of single modalities may be summed by the head, or averaged.
    """
    split = Split()
    split.bind(step.names, step.boundary)
    if not split.finds(step):
        return ()
    total = torch.stack([at_least_single(u) for u in split.logits(step).values()]).sum(dim=0)
    logits = at_least_single(step.logits)
    tolerance = 1e-4 if step.logits.dtype in (torch.float32, torch.float64) else 3e-2
    for factor in (1.0, 1 / len(step.names)):
        if torch.allclose(factor * total, logits, rtol=tolerance, atol=tolerance):
            return ((split, factor),)
    return ()
