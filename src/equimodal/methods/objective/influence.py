"""How much predictions change with features from other samples, with a graph that takes sides."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.functional.mcr import changed_prediction, scaled_gradient
from equimodal.functional.precision import at_least_single
from equimodal.methods.gradient.dgl import run_head
from equimodal.scores.rows import Head, products
from equimodal.step import Step

EXACT = 6  # modalities up to which every set of them is permuted: 2^M - 2 of them
ROUNDS = 4  # sets that share a permutation above


class Influences:
    """The losses L_S of MCR over all sets S, or over as many as are drawn.

    A linear layer on the features is not run at all: predictions are sums of its products with each
    feature. Any other head runs once for all sets where it takes every row by itself, else twice
    for each set.

    Args:
        strategy: k of the method.
    """

    def __init__(self, strategy: int) -> None:
        self.strategy = strategy
        self._head = Head()

    def of(
        self, step: Step, orders: Tensor, complete: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return the sum of the losses L_S, shape ``()``.

        Args:
            step: the micro-batch.
            orders: permutations of the batch for every modality, shape ``(M, P, B)``.
            complete: which samples count, shape ``(B,)``, bool; all where None.
            generator: what sets are drawn from, above `EXACT` modalities.
        """
        modalities, permutations, _ = orders.shape
        count: int = 2**modalities - 2
        if modalities <= EXACT:
            numbers = torch.arange(1, count + 1)[:, None]  # each set with every permutation
        else:  # one of every stretch of equal length, so that all are as likely
            drawn = ROUNDS * permutations
            places = torch.arange(drawn) + torch.rand(drawn, generator=generator).double()
            numbers = 1 + (places * (count / drawn)).long().clamp(max=count - 1)
            shuffled = torch.randperm(drawn, generator=generator)
            numbers = numbers[shuffled].view(ROUNDS, permutations)
        sets = (numbers[..., None] >> torch.arange(modalities)) & 1 == 1
        sets = sets.to(orders.device, non_blocking=True)
        structure = self._head.structure(step)
        if structure.linear is None:
            own, changed = self._run(step, orders, sets)
        else:
            own, changed = self._added(step, orders, sets)
        divergences = changed_prediction(at_least_single(own), at_least_single(changed))
        mean: Tensor
        if complete is None:
            mean = divergences.mean()
            return -count * mean
        sources = complete[orders].movedim(0, 1) | ~sets[..., None]  # (J, P, M, B)
        counted = sources.all(dim=2) & complete
        of_set = (1, 2) if modalities <= EXACT else 2  # a set is that of one permutation, or of all
        total = torch.where(counted, divergences, 0).sum(dim=of_set)
        mean = (total / counted.sum(dim=of_set).clamp(min=1)).mean()
        return -count * mean

    def _added(self, step: Step, orders: Tensor, sets: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions as sums of parts: own and changed, ``(J, P or 1, B, C)`` each."""
        found = self._head.structure(step).linear
        assert found is not None
        parts = products(step, *found, fixed=self.strategy != 1)
        beside = scaled_gradient(parts, self.strategy)
        starts = torch.arange(len(parts), device=orders.device) * step.size
        rows = (orders + starts[:, None, None]).flatten()
        elsewhere = parts.flatten(0, 1)[rows].view(*orders.shape, -1)
        with torch.autocast(parts.device.type, enabled=False):
            inside = sets.to(parts.dtype)
            left = torch.tensordot(1 - inside, beside, dims=1)
            own = torch.tensordot(inside, parts, dims=1) + left
            changed = torch.einsum(
                "jpm,mpbc->jpbc", inside.expand(-1, orders.shape[1], -1), elsewhere
            )
        return own, changed + left

    def _run(self, step: Step, orders: Tensor, sets: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions of the head: own and changed, ``(J, P or 1, B, C)`` each."""
        fixed = {n: p.detach() for n, p in step.boundary.named_parameters()}
        parameters = {} if self.strategy == 1 else fixed
        tables = {
            name: torch.cat([feature, scaled_gradient(feature, self.strategy)])
            for name, feature in step.gated.items()
        }
        here = torch.arange(step.size, device=orders.device)
        (_, permutations, size), rounds = orders.shape, len(sets)
        inside = sets.movedim(2, 0)[..., None]  # (M, J, P or 1, 1)
        aside = here + size  # rows of the second half of a table: with the side of the others
        changed = torch.where(inside, orders[:, None], aside)
        own = torch.where(inside, here, aside)

        def answers(rows: Tensor) -> Tensor:
            picked = {
                name: table[of] for (name, table), of in zip(tables.items(), rows, strict=True)
            }
            return run_head(step, picked, parameters)

        if self._head.takes_rows(step):
            both = torch.cat([changed.flatten(1), own.flatten(1)], dim=1)
            logits = answers(both)
            of_changed, of_own = logits[: changed[0].numel()], logits[changed[0].numel() :]
        else:
            of_changed = torch.cat([answers(rows.flatten(1)) for rows in changed.unbind(1)])
            of_own = torch.cat([answers(rows.flatten(1)) for rows in own.unbind(1)])
        classes = step.logits.shape[1:]
        return (
            of_own.view(rounds, -1, size, *classes),
            of_changed.view(rounds, permutations, size, *classes),
        )
