"""Losses that the user hands over, one per sample and modality, in place of logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from equimodal.errors import MatchError
from equimodal.functional.precision import at_least_single
from equimodal.method import Method
from equimodal.scores import Given, Scores
from equimodal.step import Shapes
from equimodal.system.once import once

READING = ("objective", "measure", "gate", "combine", "predict", "predict_unimodal")
READING_DATA = {"training data", "held-out data"}  # with the model's logits on it


class OwnLosses:
    """The losses of one micro-batch, and what follows from them.

    Args:
        names: the modalities.
        losses: for each modality one loss per sample, shape ``(B,)``, with their graph. A modality
            without an entry is missing from the whole batch.
        joint: the loss to train on, shape ``()``; the sum of the means by default.
        present: which samples have a modality, shape ``(B,)``, bool, by name. The losses of others
            do not count.

    Raises:
        MatchError: something has another shape, or no modality has a loss.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        losses: Mapping[str, Tensor],
        joint: Tensor | None,
        present: Mapping[str, Tensor] | None,
    ) -> None:
        self.names = names
        self.losses = _checked(names, losses)
        first = next(iter(self.losses.values()))
        self.size, self.device, self.dtype = len(first), first.device, first.dtype
        self.present = _checked_masks(names, present or {}, self.size)
        if joint is not None and (not isinstance(joint, Tensor) or joint.ndim):
            found = tuple(joint.shape) if isinstance(joint, Tensor) else type(joint).__name__
            raise MatchError(f"loss(joint=): expected a loss of shape (), found {found}")
        self.joint = joint

    @property
    def shapes(self) -> Shapes:
        """What methods make their state by: there are no features and no logits."""
        wide = self.dtype == torch.float64
        return Shapes({}, (), self.device, torch.float64 if wide else torch.float32)

    def total(self) -> Tensor:
        """Return the loss to train on, shape ``()``."""
        if self.joint is not None:
            return self.joint
        return torch.stack(list(self.means.values())).sum()

    def trained(self, total: Tensor) -> Tensor:
        """Return the loss on a node of its own, which carries what belongs to it.

        Raises:
            MatchError: it has no graph.
        """
        if not total.requires_grad:
            raise MatchError(
                "the losses carry no graph: they were computed under torch.no_grad(), were "
                "detached, or every parameter is frozen"
            )
        return total.clone()

    @property
    def lacking(self) -> frozenset[str]:
        """The modalities that no sample has; a mask that is not on the CPU is waited for."""
        masked = {name for name, mask in self.present.items() if not bool(mask.any())}
        return frozenset(set(self.names) - set(self.losses) | masked)

    @once
    def means(self) -> dict[str, Tensor]:
        """Return the mean loss of every modality over the samples that have it; 0 of none."""
        means = {}
        for name, losses in self.losses.items():
            mask = self.present.get(name)
            if mask is None:
                means[name] = losses.mean()
            else:
                kept = torch.where(mask.to(losses.device), losses, 0)
                means[name] = kept.sum() / mask.sum().clamp(min=1).to(losses)
        return means

    @torch.no_grad()
    def log_scores(self, scores: Given) -> tuple[Tensor, Tensor | int]:
        """Return logarithms of the scores, shape ``(M,)``, and what they are of: see `Step`."""
        nothing = torch.zeros(self.size, device=self.device, dtype=self.dtype)
        each = [at_least_single(self.losses.get(name, nothing).detach()) for name in self.names]
        if not self.present and len(self.losses) == len(self.names):
            return scores.added(torch.stack(each), None), self.size
        everyone = torch.ones(self.size, dtype=torch.bool, device=self.device)
        counts = torch.stack(
            [
                self.present.get(name, everyone).to(self.device)
                if name in self.losses
                else ~everyone
                for name in self.names
            ]
        )
        return scores.added(torch.stack(each), ~counts), counts

    def refuse_readers(self, methods: Iterable[Method], scores: Scores, scored: bool) -> None:
        """Refuse methods and scores that read logits.

        Raises:
            MatchError: there is one.
        """
        for method in methods:
            if any(map(method.overrides, READING)) or method.needs & READING_DATA:
                raise MatchError(
                    f"{type(method).__name__} reads logits, and this loss came without: "
                    "loss(losses=...) goes with methods that need scores alone, such as eq.OGM; "
                    "for others give logits, loss(logits, target)"
                )
        if scored and not isinstance(scores, Given):
            raise MatchError(
                f"scores={type(scores).__name__} reads logits, and this loss came without: take "
                "evidence from the losses themselves, eq.Balancer(..., scores=eq.Given()), or from "
                "how far they have fallen, scores=eq.LossFall()"
            )


def refuse_both(logits: object, losses: object, joint: object) -> None:
    """Refuse calls of `Balancer.loss` that give logits and losses, or neither.

    Raises:
        MatchError: they do.
    """
    if logits is None and losses is None:
        raise MatchError("balancer.loss: expected loss(logits, target) or loss(losses={...})")
    if logits is not None and (losses is not None or joint is not None):
        raise MatchError(
            "balancer.loss: expected loss(logits, target) or loss(losses={...}, joint=...), found "
            "both: methods add terms to the criterion's loss, and `losses` stand in its place"
        )


def _checked(names: tuple[str, ...], losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    given: Any = losses
    if not isinstance(given, Mapping) or not given:
        found = "no entry" if isinstance(given, Mapping) else type(given).__name__
        raise MatchError(
            f"loss(losses=): expected a dict with one loss per sample for each of "
            f"{', '.join(names)}, found {found}"
        )
    unknown = [name for name in given if name not in names]
    if unknown:
        raise MatchError(f"losses: no modality {unknown[0]!r}, there are {list(names)}")
    for name, of in given.items():
        if not isinstance(of, Tensor) or of.ndim != 1 or not of.is_floating_point():
            found = f"{tuple(of.shape)}" if isinstance(of, Tensor) else type(of).__name__
            raise MatchError(
                f"losses[{name!r}]: expected one loss per sample, floating point of shape (B,), "
                f"found {found}: average over all dimensions but the first, as by "
                ".flatten(1).mean(1)"
            )
    sizes = {name: len(of) for name, of in given.items()}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise MatchError(
            f"losses: expected one batch, of one size above 0, found {sizes}: give samples that "
            "lack a modality any loss, and say present={name: mask}"
        )
    return dict(given)


def _checked_masks(
    names: tuple[str, ...], present: Mapping[str, Tensor], size: int
) -> dict[str, Tensor]:
    for name, mask in present.items():
        if name not in names:
            raise MatchError(f"present: no modality {name!r}, there are {list(names)}")
        if mask.dtype != torch.bool or mask.shape != (size,):
            raise MatchError(
                f"present[{name!r}]: expected bool of shape ({size},), found {mask.dtype} of shape "
                f"{tuple(mask.shape)}"
            )
    return dict(present)
