"""The model that is examined: which module is which modality, and how to run it."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import nn

from equimodal.attach.capture import leave
from equimodal.attach.features import Given
from equimodal.criterion import Criterion, Kind, Loss
from equimodal.diagnostics.complete import refuse_missing, refuse_silent
from equimodal.diagnostics.finite import Finite
from equimodal.epochs.passes import Forward, last_is_target, observed
from equimodal.errors import SetupError
from equimodal.matching import Attachment
from equimodal.modalities import Encoders
from equimodal.scores import Probe, scores_from
from equimodal.step import Step


class Subject:
    """A model under examination, described as for `Balancer`, but without an optimizer.

    Its forward is watched, never changed; `detach`, or leaving the context, takes the hooks off.

    Args:
        model: the trained model, or one in training, on its device.
        encoders: for each modality the module that encodes it (or several, or dotted names).
        head: the module that turns the features into logits; None for models without one.
        features: where the head's inputs hold each feature, if it cannot be found out.
        criterion: loss of (logits, target).
        outputs: what it takes, where that does not show: as for `equimodal.Balancer`.
        scores: how unimodal logits are read, see `Balancer`.
        forward: (model, batch) to (logits, target); by default a batch is a tuple of the model's
            inputs with the target last. Samples that a third entry, ``present`` of `Balancer.loss`,
            says to lack a modality are refused.

    Attributes:
        names: the modalities.
        model: the user's model.

    Raises:
        SetupError: something does not fit; nothing has been attached then.
    """

    def __init__(
        self,
        model: nn.Module,
        encoders: Encoders,
        head: nn.Module | str | None = None,
        *,
        features: Given | None = None,
        criterion: Loss = F.cross_entropy,
        outputs: Kind | None = None,
        scores: Any = "auto",
        forward: Forward = last_is_target,
    ) -> None:
        self.criterion = Criterion(criterion, outputs)
        self.forward = forward
        chosen = scores_from(scores)
        if isinstance(chosen, Probe) and not chosen.readouts.names:
            raise SetupError(
                "scores=eq.Probe(): probes learn along with a model, and nothing is trained here. "
                "Pass trained ones, scores=balancer.scores, or eq.Ablation(); for linear probes of "
                "frozen encoders call equimodal.diagnostics.encoders.probes.probes"
            )
        self.attached = Attachment(model, encoders, head, features, chosen, self.criterion)
        self.names = self.attached.names
        self.model = model
        self.attached.recorder.attach()
        self._leave = weakref.finalize(self, leave, self.attached.recorder, [])
        self._leave.atexit = False

    def steps(self, loader: Iterable[Any], *, graph: bool = False) -> Iterator[Step]:
        """Pass over data in evaluation mode, and yield a `Step` for every batch.

        A step has the logits, the target and the features, and runs the head on other features:
        ``step.head({"audio": ..., "visual": ...})``.

        Args:
            loader: batches as `forward` takes them.
            graph: with gradients; without by default.

        Raises:
            SetupError: samples lack a modality, or the loader does not end.
        """
        loader = loader if isinstance(loader, Finite) else Finite(loader)
        batches = ((batch, None) for batch in loader)
        steps = observed(self.attached, self._whole, batches, graph=graph)
        with contextlib.closing(steps):  # type: ignore[type-var]  # a generator
            for step in steps:
                refuse_missing(step)
                yield step

    def _whole(self, model: nn.Module, batch: Any) -> tuple[Any, ...]:
        """Run the forward; where an encoder did not, its feature cannot even be looked for."""
        found = self.forward(model, batch)
        if self.attached.recorder.seen is not None:
            refuse_silent(self.names, self.attached.recorder.seen[0].encoders)
        return found

    def detach(self) -> None:
        """Take the hooks off the model."""
        self._leave()

    def __enter__(self) -> Subject:
        return self

    def __exit__(self, *exception: object) -> None:
        self.detach()
