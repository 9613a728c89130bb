"""How well each modality does alone on data that are passed over between epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.methods.labels import class_labels
from equimodal.step import Step

Unimodal = Callable[[Step], Mapping[str, Tensor]]


def losses(run: Run, loader: Iterable[Any], unimodal: Unimodal) -> Tensor:
    """Return the mean loss per sample of every modality, shape ``(M,)``, the same on every rank.

    Args:
        run: the training run.
        loader: held-out data, never the test set.
        unimodal: from a step to the logits of every modality.

    Raises:
        SetupError: the loader gives no sample.
    """

    def read(step: Step, logits: list[Tensor]) -> Tensor:
        return step.criterion.each_per_sample(logits, step.target)

    return _means(run, loader, unimodal, read)


def accuracies(run: Run, loader: Iterable[Any], unimodal: Unimodal, method: str) -> Tensor:
    """Return the accuracy of every modality, shape ``(M,)``, the same on every rank.

    Args:
        run: the training run.
        loader: held-out data, never the test set.
        unimodal: from a step to the logits of every modality, shape ``(B, C)``.
        method: how messages call the method.

    Raises:
        SetupError: the loader gives no sample.
        MatchError: the target is no class per sample.
    """

    def read(step: Step, logits: list[Tensor]) -> Tensor:
        labels, _ = class_labels(step, method)
        wide = torch.promote_types(logits[0].dtype, torch.float32)  # half counts to 2,048 only
        return torch.stack([(of.argmax(dim=1) == labels).to(wide) for of in logits])

    return _means(run, loader, unimodal, read)


def _means(
    run: Run,
    loader: Iterable[Any],
    unimodal: Unimodal,
    read: Callable[[Step, list[Tensor]], Tensor],
) -> Tensor:
    """Return means over the samples that have the modality and something to predict, ``(M,)``."""
    sums: list[Tensor] = []
    for step in run.steps(loader):
        logits = unimodal(step)
        values = read(step, [logits[name].detach() for name in run.names])
        ignored = step.criterion.ignored(step.target)
        counted = torch.ones_like(values, dtype=torch.bool)
        if ignored is not None:
            counted &= ~ignored
        for at, name in enumerate(run.names):
            if name in step.present:
                counted[at] &= step.present[name].to(counted.device)
        # A product would carry the NaN of a sample that does not count.
        kept = torch.where(counted, values, 0).sum(dim=1)
        sums.append(torch.stack([kept, counted.sum(dim=1).to(kept)]))
    if not sums:
        raise SetupError(
            "a loader gave no batch between epochs: expected one that can be passed over again "
            "after every epoch, such as a DataLoader, and not an iterator"
        )
    total = run.summed(torch.stack(sums).sum(dim=0))
    means: Tensor = total[0] / total[1]
    return means
