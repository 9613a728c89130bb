"""The loss on cosines between each modality's feature and its class vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from equimodal.errors import MatchError, SetupError
from equimodal.functional.mmcosine import cosine_logits
from equimodal.method import Capabilities, Method
from equimodal.noise import mix
from equimodal.readout import Readouts, feature_vectors
from equimodal.scores import find_linear, weight_slices
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class ClassVectors(nn.Module):
    """Where the class vectors of each modality come from."""

    def bind(self) -> None:
        """Forget what was found in another model."""

    def build(self, shapes: Shapes, seed: int) -> None:
        """Make layers whose sizes depend on the features."""

    def pairs(self, step: Step) -> dict[str, tuple[Tensor, Tensor]]:
        """Return for each modality its feature ``(B, ..., D)`` and class vectors ``(C, D)``."""
        raise NotImplementedError


class HeadSlices(ClassVectors):
    """The slices of the user's linear head on concatenated features, as in the paper.

    The head is found as for `equimodal.Split`: it must reproduce the logits. Its bias is not used.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: tuple[nn.Linear, tuple[str, ...]] | None = None  # in a tuple: no submodule

    def bind(self) -> None:
        self._found = None

    def pairs(self, step: Step) -> dict[str, tuple[Tensor, Tensor]]:
        if self._found is None:
            self._found = find_linear(step.boundary, step)
        if self._found is None:
            raise MatchError(
                f"MMCosine: expected a head with one linear layer on the concatenated features, "
                f"found {type(step.boundary).__name__}: write "
                "eq.MMCosine(vectors=eq.OwnVectors()), which has linear layers of its own"
            )
        slices = weight_slices(*self._found, step.gated)
        return {name: (step.gated[name], slices[name]) for name in step.names}


class OwnVectors(ClassVectors):
    """A linear layer of the method's own for every modality, on its pooled feature.

    For models whose head is not linear, or that have none. The head is then neither trained nor
    used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readouts = Readouts(bias=False)

    def build(self, shapes: Shapes, seed: int) -> None:
        self.readouts.build(shapes, seed)

    def pairs(self, step: Step) -> dict[str, tuple[Tensor, Tensor]]:
        layers = zip(self.readouts.names, self.readouts.layers, strict=True)
        weights = {name: layer.get_parameter("weight") for name, layer in layers}
        return {
            name: (feature_vectors(step.gated[name]).to(weight.dtype), weight)
            for name, weight in weights.items()
        }


class MMCosine(Method):
    r"""Train and predict by cosines in place of the head's products (Xu et al., ICASSP 2023).

    .. math:: L = \ell\Big(\sum_m u_m,\, y\Big), \quad
        u_{m,c} = s \frac{z_m W_{m,c}^\top}{\lVert z_m \rVert \lVert W_{m,c} \rVert}

    No modality can win the logits by the length of its features or of its class vectors: each
    contributes between -s and s to the logit of a class. There is no bias.

    The cosine logits of single modalities are what other methods, such as OGM, take scores of.

    Inference is by the same rule: use `Balancer.predict` or `Balancer.export`, not the model.

    Args:
        scale: s, positive; 10 in the released code.
        vectors: the class vectors W: `HeadSlices()` of the user's linear head (the paper; None
            stands for it), or `OwnVectors()` for any other head.

    Raises:
        SetupError: the scale is not positive, or the vectors are no such object.
    """

    name = "mmcosine"
    search = searched(scale=Log(3.0, 30.0))
    source = "Xu et al., ICASSP 2023"
    replaces_joint = True
    capabilities = Capabilities()
    scored = True

    def __init__(self, scale: float = 10.0, vectors: ClassVectors | None = None) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise SetupError(f"MMCosine(scale): expected a positive number, found {scale}")
        if vectors is not None and not isinstance(vectors, ClassVectors):
            raise SetupError(
                f"MMCosine(vectors): expected eq.HeadSlices() or eq.OwnVectors(), found {vectors!r}"
            )
        self.scale = scale
        self.vectors = vectors or HeadSlices()
        self._shape: tuple[int, ...] | None = None

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self.vectors.bind()
        self._shape = None

    def build(self, shapes: Shapes) -> None:
        self._shape = shapes.logits
        self.vectors.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        # What the cosines leave out of the head (its bias) gets a gradient of zero, as it does
        # under DistributedDataParallel: weight decay then acts alike with any number of ranks.
        unused = torch.ones_like(step.logits, dtype=torch.bool)
        untouched = step.logits.masked_fill(unused, 0).sum()
        return {"joint": step.loss(self.predict(step)) + untouched}

    def predict(self, step: Step) -> Tensor:
        """Return the sum of the modalities' cosine logits."""
        return torch.stack(list(self.predict_unimodal(step).values())).sum(dim=0)

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the cosine logits of every modality."""
        # The criterion's shape: the user may squeeze what the head returns, which inference sees.
        shape = step.logits.shape[1:] if self._shape is None else self._shape
        return {
            name: cosine_logits(feature, weight, self.scale).reshape(step.size, *shape)
            for name, (feature, weight) in self.vectors.pairs(step).items()
        }
