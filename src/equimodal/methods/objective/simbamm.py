"""A plain late fusion by a transformer, which complex methods have to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from equimodal.errors import SetupError
from equimodal.method import REST, Method
from equimodal.methods.objective.counted import counted
from equimodal.methods.objective.token_fusion import TokenFusion
from equimodal.noise import mix
from equimodal.step import Shapes, Step


class SimBaMM(Method):
    r"""Simple baseline for multimodal learning (Rheude et al., 2025).

    .. math:: L = \ell\big(g(T(P_1 z_1, \dots, P_M z_M)), y\big)

    Every feature is projected to a token of one width, a transformer T attends among the tokens
    that a sample has, and their mean is classified. Nothing is balanced: it is the baseline that 19
    methods did not reliably beat once all were tuned alike. Projections, transformer and classifier
    belong to the method; the model's own head is neither trained nor used.

    The size, and with it the result, is a matter of tuning: search it as you search others'.

    Args:
        width: of a token, a multiple of `heads`.
        blocks: of attention and two layers, 1 or more.
        heads: of the attention, 1 or more.

    Raises:
        SetupError: an argument is out of its range.
    """

    name = "simbamm"
    source = "Rheude et al., 2025"
    replaces_joint = True

    def __init__(self, width: int = 64, *, blocks: int = 2, heads: int = 4) -> None:
        super().__init__()
        for what, whole in {"width": width, "blocks": blocks, "heads": heads}.items():
            if not (type(whole) is int and whole >= 1):
                raise SetupError(
                    f"SimBaMM({what}): expected a whole number of 1 or more, found {whole!r}"
                )
        if width % heads:
            raise SetupError(f"SimBaMM(width): expected a multiple of heads={heads}, found {width}")
        self.fusion = TokenFusion(width, blocks, heads)

    def build(self, shapes: Shapes) -> None:
        self.fusion.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        seen = self._seen(step)
        logits = self.fusion(step.features, seen)
        someone = seen.any(dim=0) if step.present else None
        return {"joint": step.loss(logits, present=someone)}

    def frozen(self) -> frozenset[str]:
        return frozenset({REST})

    def predict(self, step: Step) -> Tensor:
        """Return the logits of the method's own fusion."""
        logits: Tensor = self.fusion(step.features, self._seen(step))
        return logits

    def predict_unimodal(self, step: Step) -> dict[str, Tensor]:
        """Return the logits of the same fusion with the token of each modality alone."""
        alone = {}
        for at, name in enumerate(self.names):
            seen = torch.zeros_like(self._seen(step))
            seen[at] = True
            alone[name] = self.fusion(step.features, seen)
        return alone

    def _seen(self, step: Step) -> Tensor:
        rows = counted(step)
        if rows is not None:
            return rows
        size, device = (len(self.names), step.size), step.logits.device
        return torch.ones(size, dtype=torch.bool, device=device)
