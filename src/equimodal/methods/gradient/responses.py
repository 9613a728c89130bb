"""What each modality answers: its Shapley value of the logits, by the fewest runs of a head."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equimodal import functional
from equimodal.functional.agm import circle_weights, shapley_responses
from equimodal.noise import mix
from equimodal.scores import evaluation
from equimodal.scores.rows import Head, products
from equimodal.step import Step

EXACT = 6  # modalities up to which every coalition is asked: 2^M - 2 of them


class Responses:
    """The responses of a head that is asked once what it is.

    Of a linear layer on the features they are products with its parts; of any other affine head
    they follow from each feature alone; else coalitions are asked, in one call where the head takes
    every row by itself. Above `EXACT` modalities these are the arcs of one random circle of the
    modalities per step, whose expected value is the same.
    """

    def __init__(self) -> None:
        self._head = Head()

    def linear(self, step: Step) -> nn.Linear | None:
        """Return the one layer that is given the features and makes the logits, if there is one."""
        found = self._head.structure(step).linear
        return None if found is None else found[0]

    def widths(self, step: Step) -> dict[str, int]:
        """Return how many columns of that layer's weight each modality has, in their order."""
        found = self._head.structure(step).linear
        assert found is not None
        return {name: step.features[name].shape[-1] for name in found[1]}

    def of(self, step: Step, seed: int) -> Tensor:
        """Return the response of every modality, shape ``(M, *logits)``; they sum to the logits.

        Args:
            step: the micro-batch.
            seed: of the circle, where one is drawn; the same in all micro-batches of a step.
        """
        structure = self._head.structure(step)
        if structure.linear is not None:
            layer, order = structure.linear
            return products(step, layer, order)
        modalities = len(step.names)
        if structure.affine:
            nothing, *alone = self._asked(step, [0, *(1 << m for m in range(modalities))]).unbind()
            return torch.stack(alone) - (1 - 1 / modalities) * nothing
        if modalities <= EXACT:
            asked = self._asked(step, range(1, 2**modalities - 1))
            return shapley_responses(torch.cat([asked, step.logits[None]]))
        sets, weights = circle_weights(_circle(step.names, seed))
        asked = self._asked(step, sets)
        return functional.weighted_sums(weights, torch.cat([asked, step.logits[None]]))

    def _asked(self, step: Step, sets: Sequence[int]) -> Tensor:
        """Return the logits of coalitions, shape ``(len(sets), *logits)``.

        Features of modalities outside of a coalition are zero. BatchNorm and dropout of the head do
        not notice: it runs in evaluation mode.

        Args:
            step: the micro-batch.
            sets: bit m of a number says whether modality m is there.
        """
        there = [[bool(number >> m & 1) for number in sets] for m in range(len(step.names))]
        with evaluation(step.boundary):
            if self._head.takes_rows(step):
                masks = torch.tensor(there).to(step.logits.device, non_blocking=True)
                rows = {
                    name: torch.where(mask.view(-1, *[1] * z.ndim), z, 0).flatten(0, 1)
                    for (name, z), mask in zip(step.gated.items(), masks, strict=True)
                }
                return step.head(rows).view(len(sets), *step.logits.shape)
            zeros = {name: torch.zeros_like(feature) for name, feature in step.gated.items()}
            answers = [
                step.head(
                    {
                        n: (step.gated if t else zeros)[n]
                        for n, t in zip(step.names, of, strict=True)
                    }
                )
                for of in zip(*there, strict=True)
            ]
        return torch.stack(answers)


def _circle(names: Sequence[str], seed: int) -> list[int]:
    """Return the modalities in a random order, which their names draw: theirs changes nothing."""
    drawn = [mix(seed, zlib.crc32(name.encode())) for name in names]
    return sorted(range(len(names)), key=lambda index: (drawn[index], names[index]))
