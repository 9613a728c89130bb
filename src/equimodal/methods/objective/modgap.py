"""The gap between the features of modalities, closed while they are trained."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.functional.means import mean_counted
from equimodal.functional.modgap import symmetric_contrast, uniformity
from equimodal.functional.precision import at_least_single
from equimodal.method import Capabilities, Method
from equimodal.methods.objective.counted import counted
from equimodal.readout import feature_vectors, vector_width
from equimodal.step import Shapes, Step


class ModGap(Method):
    r"""Close the modality gap (Grassucci, Cicchetti et al., ICLR 2026).

    .. math::
        L = L(f, y) + w \Big( \ell_{con}(z_a, z_b) + \lambda_1 \tfrac1B \sum_i \|z_{ia} - z_{ib}\|^2
        + \lambda_2 \log \mathrm{mean}_{i<j}\, e^{-2 \|c_i - c_j\|^2} \Big), \quad
        c = \frac{z_a + z_b}{\|z_a + z_b\|}

    on features z of length 1. The contrast tells samples apart, the second term takes the two
    modalities of a sample to one place, and the third spreads these places over the sphere, so that
    they do not all collapse into one. With more than two modalities the first two are means over
    the pairs, and c is the centroid of all.

    The paper trains on these terms alone, without labels; here they join the loss of the task.

    Args:
        weight: w, 0 or more.
        temperature: of the contrast, above 0.
        alignment: :math:`\lambda_1`, 0 or more.
        uniformity: :math:`\lambda_2`, 0 or more.

    Raises:
        SetupError: an argument is out of its range, or the features are not of one width.
    """

    name = "modgap"
    source = "Grassucci, Cicchetti et al., ICLR 2026"
    capabilities = Capabilities(accumulation="per micro-batch")

    def __init__(
        self,
        weight: float = 0.1,
        *,
        temperature: float = 0.07,
        alignment: float = 1.0,
        uniformity: float = 1.0,
    ) -> None:
        super().__init__()
        for what, value in {
            "weight": weight,
            "alignment": alignment,
            "uniformity": uniformity,
        }.items():
            if not 0 <= value < math.inf:
                raise SetupError(f"ModGap({what}): expected a number of 0 or more, found {value}")
        if not 0 < temperature < math.inf:
            raise SetupError(f"ModGap(temperature): expected a number above 0, found {temperature}")
        self.weight = weight
        self.temperature = temperature
        self.alignment = alignment
        self.uniformity = uniformity

    def build(self, shapes: Shapes) -> None:
        widths = {name: vector_width(shape) for name, shape in shapes.features.items()}
        if len(set(widths.values())) > 1:
            raise SetupError(
                f"ModGap: expected features of one width, to be compared with each other, found "
                f"{widths}: let the encoders end in layers of the same width"
            )

    def objective(self, step: Step) -> dict[str, Tensor]:
        rows = counted(step)
        vectors = [
            F.normalize(at_least_single(feature_vectors(step.features[name])), dim=1)
            for name in self.names
        ]
        pairs = []
        for first, second in itertools.combinations(range(len(vectors)), 2):
            both = None if rows is None else rows[first] & rows[second]
            apart = (vectors[first] - vectors[second]).square().sum(dim=1)
            pairs.append(
                symmetric_contrast(vectors[first], vectors[second], self.temperature, both)
                + self.alignment * mean_counted(apart, both)
            )
        centroids = F.normalize(torch.stack(vectors).sum(dim=0), dim=1)
        complete = None if rows is None else rows.all(dim=0)
        spread = self.uniformity * uniformity(centroids, complete)
        return {"gap": self.weight * (torch.stack(pairs).mean() + spread)}
