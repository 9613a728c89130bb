"""Teachers: an encoder and a classifier, or the unimodal models that the library has trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.methods.objective.unimodal import Ensemble, Unimodal
from equimodal.methods.teachers import Teachers
from equimodal.readout import feature_vectors

if TYPE_CHECKING:
    from equimodal.balancer import Balancer

WRITE = "write the teacher yourself, as a module from the encoder's input to (logits, feature)"


class Teacher(nn.Module):
    """A unimodal model: an encoder and a classifier on its pooled feature.

    Args:
        encoder: takes what the encoder of the multimodal model takes, returns a feature.
        classifier: takes pooled features of shape ``(B, D)``, returns logits.
    """

    def __init__(self, encoder: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return the logits and the pooled feature."""
        feature = feature_vectors(self.encoder(*args, **kwargs))
        return self.classifier(feature), feature


def teachers_of(balancer: Balancer, batch: Any) -> dict[str, Teacher]:
    """Return the unimodal models that `Ensemble` or `Unimodal` has trained, as copies.

    Args:
        balancer: trained by `eq.Ensemble()`, which trains every modality alone in one run, or by
            `eq.Unimodal(modality)`.
        batch: one batch as the balancer's `forward` takes it, on which each teacher is compared
            with the model that was trained.

    Returns:
        A teacher for each modality that was trained.

    Raises:
        SetupError: the balancer trains no unimodal models or has not trained yet, or an encoder and
            the classifier are not all that there is between input and logits.
    """
    trained = balancer.methods.owner("predict_unimodal")
    if not isinstance(trained, Ensemble):
        raise SetupError(
            "teachers_of: expected a balancer with eq.Ensemble() or eq.Unimodal(...), found "
            f"{', '.join(type(method).__name__ for method in balancer.methods)}"
        )
    if not trained.readouts.names:
        raise SetupError(
            "teachers_of: expected a trained balancer, found one before its first step"
        )
    attached, readouts = balancer.attached, copy.deepcopy(trained.readouts)
    model = attached.copy_model()
    paths = {module: path for path, module in attached.bare_model.named_modules()}
    names = (trained.modality,) if isinstance(trained, Unimodal) else balancer.names
    shape = readouts.shape
    teachers = {}
    for name, layer in zip(readouts.names, readouts.layers, strict=True):
        if name not in names:
            continue
        first, *more = attached.modalities.modules[name]
        if more:
            raise SetupError(
                f"teachers_of: encoders[{name!r}] consists of {1 + len(more)} modules, and what "
                f"happens between them is not known: {WRITE}"
            )
        reshape = nn.Unflatten(1, shape) if shape else nn.Flatten(0)
        teachers[name] = Teacher(model.get_submodule(paths[first]), nn.Sequential(layer, reshape))
    _compare(balancer, teachers, batch)
    return teachers


def _compare(balancer: Balancer, teachers: Mapping[str, Teacher], batch: Any) -> None:
    recorder = balancer.attached.recorder
    before, recorder.keeps_encoders = recorder.keeps_encoders, True
    try:
        (step,) = Run(balancer).steps([batch])
    finally:
        recorder.keeps_encoders = before
    owner = balancer.methods.owner("predict_unimodal")
    assert owner is not None
    with torch.no_grad():
        expected = owner.predict_unimodal(step)
        for name, answer in Teachers(teachers).answers(step).items():
            found = answer.logits.view_as(expected[name])
            if not torch.allclose(found, expected[name], rtol=1e-3, atol=1e-5):
                raise SetupError(
                    f"teachers_of: encoders[{name!r}] and the classifier alone do not give the "
                    "logits that were trained, since the head is given something else than what "
                    f"the encoder returns: {WRITE}"
                )
