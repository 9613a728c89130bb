"""Alternating unimodal adaptation: one head for all modalities, stepped after each of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.errors import SetupError
from equimodal.method import REST, Capabilities, Method
from equimodal.methods.schedule.fusions import EntropyWeighted, Fusion
from equimodal.methods.schedule.projections import Projection, UnitLeastSquares, Unprojected
from equimodal.noise import mix
from equimodal.readout import feature_vectors, move, vector_width
from equimodal.step import Shapes, Step
from equimodal.update.substeps import SubSteps


class MLA(Method):
    r"""Multimodal learning with alternating unimodal adaptation (Zhang et al., CVPR 2024).

    In every step, for one modality after the other:

    .. math::
        L_m = L(W z_m + b, y), \quad
        k = P r, \quad P \leftarrow P - \frac{k k^\top}{a + r^\top k}, \quad
        P \leftarrow \frac{P}{\|P\|_F}, \quad
        \nabla_W \leftarrow \nabla_W P, \quad W \leftarrow W - \eta \nabla_W

    with r the mean feature of the batch. The linear head belongs to the method and is shared by all
    modalities, so that they meet in one space without a joint loss. P keeps its update away from
    the directions of the features it was trained on; the very first update is not projected. The
    encoders, which see their own modality's loss only, are stepped once by the user's optimizer:
    together that is a whole step per modality. The model's own head is neither trained nor used.

    Prediction is a weighted sum of the unimodal logits.

    Args:
        projection: `UnitLeastSquares()`, `LeastSquares()` without the division by the norm, or
            `Unprojected()` (what the released code does).
        fusion: `EntropyWeighted()` (the paper) or `FixedWeights({...})`.

    Raises:
        SetupError: at the first step, if the features are not of one width, or the fusion does not
            go with the modalities or the logits.
    """

    name = "mla"
    source = "Zhang et al., CVPR 2024"
    replaces_joint = True
    capabilities = Capabilities(accumulation="per micro-batch", order="matters")

    def __init__(
        self, *, projection: Projection | None = None, fusion: Fusion | None = None
    ) -> None:
        super().__init__()
        self.projection = projection or UnitLeastSquares()
        self.fusion = fusion or EntropyWeighted()
        self.shared = nn.ModuleList()  # holds the head, once its width is known
        self.register_buffer("projector", torch.empty(0))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self._shape: tuple[int, ...] = ()
        self._steps: SubSteps | None = None

    projector: Tensor
    updates: Tensor

    @property
    def head(self) -> nn.Linear:
        """The linear head that all modalities share."""
        (layer,) = self.shared
        assert isinstance(layer, nn.Linear)
        return layer

    def build(self, shapes: Shapes) -> None:
        self.fusion.check(self.names, shapes.logits)
        widths = {name: vector_width(shape) for name, shape in shapes.features.items()}
        width = next(iter(widths.values()))
        if set(widths.values()) != {width}:
            raise SetupError(
                f"MLA: expected features of one width for the head that all modalities share, "
                f"found {widths}: let the encoders end in layers of the same width"
            )
        self._shape = shapes.logits
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, 1))
            layer = nn.Linear(width, math.prod(shapes.logits), dtype=shapes.dtype)
        self.shared.append(layer)
        self.projector = torch.eye(width, dtype=shapes.dtype)
        move(self, shapes.device)

    def equip(self, steps: SubSteps) -> None:
        steps.take(self.head.parameters())
        self._steps = steps

    def objective(self, step: Step) -> dict[str, Tensor]:
        terms = {"joint": step.logits.new_zeros(())}
        for name in self.names:
            vectors = self._vectors(step, name)
            # A copy: the graph goes on needing the weight as it is before this sub-step.
            weight, bias = (p.detach().clone() for p in (self.head.weight, self.head.bias))
            outputs = nn.functional.linear(vectors, weight, bias)
            if not outputs.requires_grad:  # a frozen encoder: the head learns from it all the same
                outputs.requires_grad_()
            terms[name] = step.loss(outputs.view(-1, *self._shape), modality=name)
            (arrived,) = torch.autograd.grad(terms[name], [outputs], retain_graph=True)
            self._step_head(arrived, vectors.detach(), step, name)
        return terms

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of the shared head for every modality."""
        return {
            name: self.head(self._vectors(step, name)).view(-1, *self._shape) for name in self.names
        }

    def predict(self, step: Step) -> Tensor:
        """Return the fused unimodal logits."""
        logits = torch.stack(list(self.predict_unimodal(step).values()))
        return self.fusion(logits, self.names)

    def get_extra_state(self) -> dict[str, Any]:
        return {} if self._steps is None else self._steps.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if self._steps is not None:
            self._steps.load_state_dict(state)

    def _vectors(self, step: Step, name: str) -> Tensor:
        return feature_vectors(step.features[name]).to(self.head.weight.dtype)

    @torch.no_grad()
    def _step_head(self, arrived: Tensor, vectors: Tensor, step: Step, name: str) -> None:
        """Step the head on a modality, away from the directions it was trained on.

        By a gradient of zero where it is not finite: a scaler skips the user's step then, but the
        head has taken its own by the time that shows.
        """
        assert self._steps is not None
        arrived = arrived.to(vectors.dtype)
        weight, bias = arrived.T @ vectors, arrived.sum(dim=0)
        present = step.present.get(name)
        if present is None:
            mean = vectors.mean(dim=0)
        else:
            counted = present.to(vectors)
            mean = counted @ vectors / counted.sum().clamp(min=1)
        self._steps.average_([weight, bias, mean])
        finite = torch.stack([of.isfinite().all() for of in (weight, bias, mean)]).all()
        weight, bias, mean = (torch.where(finite, of, 0) for of in (weight, bias, mean))
        if not isinstance(self.projection, Unprojected):
            changed = self.projection(self.projector, mean)
            self.projector = torch.where(self.updates > 0, changed, self.projector)
            weight = weight @ self.projector
        self.updates += 1
        self._steps.step([weight, bias])
