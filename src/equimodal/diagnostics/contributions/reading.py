"""One pass over data that reads a model with some of its modalities left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equimodal.diagnostics.contributions.fills import Fill
from equimodal.diagnostics.traceless import run
from equimodal.errors import MatchError, SetupError
from equimodal.functional.precision import at_least_single
from equimodal.methods.data.valuation import top_class
from equimodal.step import Step

Metric = Callable[[Tensor, Any], Tensor]


def correct(logits: Tensor, target: Any) -> Tensor:
    """Return whether the largest logit is that of the class: the metric by default.

    Args:
        logits: shape ``(B, C)``, two classes or more.
        target: classes of shape ``(B,)``, or their probabilities of shape ``(B, C)``.

    Returns:
        bool, shape ``(B,)``.

    Raises:
        SetupError: there is no such class: another metric has to be given.

    >>> correct(torch.tensor([[0.1, 2.0], [3.0, 1.0]]), torch.tensor([1, 1]))
    tensor([ True, False])
    """
    classes = logits.ndim == 2 and logits.shape[1] > 1 and isinstance(target, Tensor)
    if classes and target.shape == logits.shape and target.is_floating_point():
        # Several labels of a sample may have the shape of probabilities, but do not add up to 1.
        classes = bool(((target.sum(dim=1) - 1).abs() < 1e-3).all())
    elif classes:
        classes = target.shape == logits.shape[:1] and not target.is_floating_point()
    if not classes:
        found = tuple(target.shape) if isinstance(target, Tensor) else type(target).__name__
        raise SetupError(
            "accuracy: expected logits of shape (B, classes) and one class per sample, found "
            f"logits {tuple(logits.shape)} and target {found}: give metric=, a function of "
            "(logits, target) that returns one number per sample, larger for better"
        )
    return top_class(logits, target)


def rate(metric: Metric, logits: Tensor, step: Step) -> Tensor:
    """Return the metric of every sample that has something to predict.

    Args:
        metric: from (logits, target) to one value per sample.
        logits: shape ``(B, ...)``.
        step: whose target and criterion are taken.

    Returns:
        Shape ``(B',)``, on the CPU, at least in single precision, without the samples that the
        criterion ignores.

    Raises:
        MatchError: the metric returns something else.
    """
    values = metric(logits, step.target)
    if not isinstance(values, Tensor) or values.shape != (step.size,):
        found = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise MatchError(
            f"metric: expected one value per sample, shape ({step.size},), found {found}. A metric "
            "of the whole data, such as macro-F1, is no mean over samples: it takes "
            "diagnostics.interval.interval, with a statistic of rows"
        )
    values = at_least_single(values) if values.is_floating_point() else values.float()
    ignored = step.criterion.ignored(step.target)
    return (values if ignored is None else values[~ignored]).cpu()


def read(
    step: Step,
    start: int,
    subsets: Sequence[Sequence[str]],
    fills: Mapping[str, Fill],
    metric: Metric = correct,
) -> dict[str, Tensor]:
    """Return the metric of every sample of a batch from every subset of the modalities.

    The encoders have run; the head runs once for every subset, fill and draw, on the features of
    the subset with a fill for the others. A model without a head runs as a whole that often, with
    the fills in place of what the encoders returned.

    Args:
        step: one batch.
        start: how many samples of the pass were in earlier batches.
        subsets: names of the modalities that are kept; none of them and all of them are allowed.
        fills: by name, see `equimodal.diagnostics.contributions.fills`.
        metric: from (logits, target) to one value per sample, shape ``(B,)``.

    Returns:
        By fill, shape ``(len(subsets), B')``: means over the draws of a fill.
    """
    whole = rate(metric, step.logits, step)
    values = {}
    for name, fill in fills.items():
        total = torch.zeros(len(subsets), len(whole), dtype=whole.dtype)
        for draw in range(fill.draws):
            others = fill(step.features, start, draw)
            for row, kept in enumerate(subsets):
                every = len(kept) == len(step.names)
                total[row] += whole if every else rate(metric, run(step, kept, others), step)
        values[name] = total / fill.draws
    return values
