"""Whether the joint loss pulls an encoder where its modality alone would want it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.diagnostics.interval import Interval, few_interval
from equimodal.diagnostics.randomness import observing
from equimodal.diagnostics.subject import Subject
from equimodal.errors import SetupError


@dataclass(frozen=True)
class Gradients:
    """Gradients on each encoder's own trainable parameters, as means over batches.

    A modality of which every encoder parameter is frozen or shared has no entry.

    Attributes:
        cosine: between the gradients of the joint and of the unimodal loss, by modality; None where
            one of them is 0 in every batch. Below 0 they are in conflict.
        joint: norm of the gradient of the joint loss.
        unimodal: norm of the gradient of the unimodal loss.
        batches: how many there were, over which the intervals are, by Student's t.
    """

    cosine: dict[str, Interval | None]
    joint: dict[str, Interval]
    unimodal: dict[str, Interval]
    batches: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "cosine": {name: c if c is None else asdict(c) for name, c in self.cosine.items()},
            "joint_norm": {name: asdict(norm) for name, norm in self.joint.items()},
            "unimodal_norm": {name: asdict(norm) for name, norm in self.unimodal.items()},
            "batches": self.batches,
        }


def gradients(subject: Subject, loader: Iterable[Any]) -> Gradients:
    r"""Compare the gradients of the joint loss and of each unimodal loss on each encoder.

    .. math:: \cos_m = \frac{\langle \nabla_{\theta_m} L(f, y), \nabla_{\theta_m} L(u_m, y) \rangle}
        {\lVert \nabla_{\theta_m} L(f, y) \rVert \lVert \nabla_{\theta_m} L(u_m, y) \rVert}

    The unimodal logits u are those that the subject's scores read through the model, such as the
    split of a linear head; MMPareto (Wei and Hu, ICML 2024) has classifiers of its own for them.
    Scores that replace by the mean of a batch need batches that are not sorted by class.
    The model is in evaluation mode, so that dropout and BatchNorm make no noise. Nothing is added
    to ``.grad``. Under Adam the norm of a gradient says little about the size of an update.

    Args:
        subject: the model; its training data say what training feels.
        loader: batches as the subject takes them, each with equal weight. Two backward passes per
            modality and batch: a few dozen batches will do.

    Raises:
        SetupError: no encoder has trainable parameters of its own, the scores give no gradient, or
            the loader is empty.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = gradients(subject, [batch(24), batch(24, seed=2)])
    >>> -1 <= found.cosine["audio"].value <= 1
    True
    """
    modalities = subject.attached.modalities
    trainable = {name: [o.parameter for o in modalities.trainable(name)] for name in subject.names}
    trainable = {name: parameters for name, parameters in trainable.items() if parameters}
    if not trainable:
        raise SetupError(
            "gradients: no encoder has trainable parameters of its own: unfreeze one; parameters "
            "that modalities share belong to none"
        )
    found: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in trainable}
    with observing(subject, loader, graph=True) as steps:
        for step in steps:
            for name, parameters in trainable.items():
                unimodal = step.loss(step.unimodal[name], modality=name)
                joint = _gradient(step.joint, parameters, "the joint loss")
                single = _gradient(unimodal, parameters, f"the unimodal loss of {name}")
                norms = joint.norm(), single.norm()
                found[name].append((joint @ single / (norms[0] * norms[1]), *norms))
    if not any(found.values()):
        raise SetupError("gradients: the loader gave no batch")
    cosine: dict[str, Interval | None] = {}
    norms_of: list[dict[str, Interval]] = [{}, {}]
    for name, values in found.items():
        cosines, *both = torch.tensor(values, dtype=torch.float64).T
        cosines = cosines[cosines.isfinite()]
        cosine[name] = few_interval(cosines) if len(cosines) else None
        for norms_by_name, norm in zip(norms_of, both, strict=True):
            norms_by_name[name] = few_interval(norm)
    batches = len(next(iter(found.values())))
    return Gradients(cosine, norms_of[0], norms_of[1], batches)


def _gradient(loss: Tensor, parameters: Sequence[nn.Parameter], what: str) -> Tensor:
    """Return the gradient of all parameters as one vector, float64 where the device has it."""
    if not loss.requires_grad:
        raise SetupError(
            f"gradients: {what} does not depend on a trainable parameter: do the scores detach "
            "what they read? Give the subject scores= that keep the graph"
        )
    parts = torch.autograd.grad(
        loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    wide = torch.float32 if loss.device.type == "mps" else torch.float64
    return torch.cat([part.flatten().to(wide) for part in parts])
