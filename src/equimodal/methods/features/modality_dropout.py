"""Modality dropout: samples lose modalities at random, in training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from equimodal.errors import SetupError, unknown
from equimodal.functional.modality_dropout import keep_modalities, keep_probability
from equimodal.method import Capabilities, Method
from equimodal.methods.features.draws import Draws
from equimodal.noise import mix
from equimodal.search import Linear, searched


class ModalityDropout(Method):
    r"""Drop whole modalities of single samples before the head, never all of a sample.

    .. math:: z_{im} \leftarrow c_m r_{im} z_{im}, \quad r_{im} \sim \mathrm{Bernoulli}(1 - p_m),
        \quad c_m = 1 / P(r_m = 1)

    A sample that would lose all modalities keeps one of them, each as likely, so that
    :math:`P(r_m = 1) = 1 - p_m + \frac{1}{M} \prod_j p_j`. Features that are kept are divided by
    it: their mean is then what the head is given in evaluation, where nothing is dropped. A
    baseline of the comparison in Peng et al., CVPR 2022.

    Args:
        probability: p, of dropping a modality, at least 0 and below 1: one for all, or one for each
            modality by name, 0 where a modality is left out.
        scale: c, what kept features are multiplied by; None for the inverse of the probability of
            being kept, 1 to leave them as they are.

    Raises:
        SetupError: an argument is out of its range, or of an unknown modality.
    """

    name = "modality-dropout"
    search = searched(probability=Linear(0.1, 0.7))
    source = "a baseline of Peng et al., CVPR 2022"
    capabilities = Capabilities(compiled=False, order="drawn")

    def __init__(
        self, probability: float | dict[str, float] = 0.5, scale: float | None = None
    ) -> None:
        super().__init__()
        each = probability if isinstance(probability, dict) else {"": probability}
        for name, value in each.items():
            if not 0 <= value < 1:
                where = f"probability[{name!r}]" if name else "probability"
                raise SetupError(
                    f"ModalityDropout({where}): expected at least 0 and below 1, found {value}"
                )
        if scale is not None and not 0 < scale < float("inf"):
            raise SetupError(f"ModalityDropout(scale): expected above 0 or None, found {scale}")
        self.probability = probability
        self.scale = scale
        self.draws = Draws()
        self._scales: list[float] = []

    probabilities: Tensor

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        given = self.probability if isinstance(self.probability, dict) else {}
        for name in given:
            if name not in names:
                raise SetupError(
                    "ModalityDropout(probability): " + unknown("modality", name, names)
                )
        rest = 0.0 if isinstance(self.probability, dict) else self.probability
        # A setting and no state, on the device of the features once they are known.
        probabilities = torch.tensor([given.get(n, rest) for n in names], dtype=torch.float64)
        self.register_buffer("probabilities", probabilities.float(), persistent=False)
        kept = keep_probability(probabilities).tolist()
        self._scales = [1 / each if self.scale is None else self.scale for each in kept]

    def gate(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        first = features[self.names[0]]
        numbers = self.draws.take(len(first), len(self.names) + 1, mix(self.seed, 1), first.device)
        probabilities = self.probabilities.to(first.device)
        keep = keep_modalities(numbers[:, :-1], numbers[:, -1], probabilities)
        return {
            name: kept.to(features[name].dtype) * scale
            for name, kept, scale in zip(self.names, keep.unbind(1), self._scales, strict=True)
        }
