"""The joint loss and the sum of unimodal losses."""

from __future__ import annotations

from torch import Tensor

from equimodal.errors import SetupError, unknown
from equimodal.method import Capabilities, Method
from equimodal.noise import mix
from equimodal.readout import Readouts
from equimodal.search import Log, searched
from equimodal.step import Shapes, Step


class MultiLoss(Method):
    r"""Add the loss of a linear classifier on each modality's feature to the joint loss.

    .. math:: L = w_0 L(f, y) + \sum_m w_m L(u_m, y), \quad u_m = W_m z_m + b_m

    A plain baseline that does better than several balancing methods (the uniform baseline of Wei
    and Hu, ICML 2024; Kontras et al., BMVC 2024). The classifiers belong to the method, and are
    trained by an optimizer like the user's.

    Args:
        unimodal: weight of the unimodal losses: one for all, or one for each modality by name.
        joint: weight of the joint loss.

    Raises:
        SetupError: a weight is negative, or of an unknown modality.
    """

    name = "multi-loss"
    search = searched(unimodal=Log(0.1, 3.0))
    source = "Wei and Hu, ICML 2024"
    replaces_joint = True
    capabilities = Capabilities(sharded=True)

    def __init__(self, unimodal: float | dict[str, float] = 1.0, joint: float = 1.0) -> None:
        super().__init__()
        weights = unimodal if isinstance(unimodal, dict) else {"unimodal": unimodal}
        for what, weight in {**weights, "joint": joint}.items():
            if not 0 <= weight < float("inf"):
                raise SetupError(
                    f"MultiLoss: expected a weight of 0 or more for {what}, found {weight}"
                )
        self.unimodal = unimodal
        self.joint = joint
        self.readouts = Readouts()

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        if isinstance(self.unimodal, dict):
            for name in self.unimodal:
                if name not in names:
                    raise SetupError("MultiLoss(unimodal): " + unknown("modality", name, names))

    def build(self, shapes: Shapes) -> None:
        self.readouts.build(shapes, mix(self.seed, 1))

    def objective(self, step: Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        terms = {
            name: self._weight(name) * step.loss(logits[name], modality=name) for name in self.names
        }
        return {"joint": self.joint * step.joint, **terms}

    def _weight(self, name: str) -> float:
        return self.unimodal.get(name, 1.0) if isinstance(self.unimodal, dict) else self.unimodal
