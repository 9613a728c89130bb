"""What every modality looked like, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equimodal.balancer import Balancer
from equimodal.diagnostics.contributions.reading import Metric, correct, rate
from equimodal.diagnostics.interval import Interval
from equimodal.diagnostics.randomness import closed
from equimodal.diagnostics.subject import Subject
from equimodal.epochs.randomness import restored
from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.step import Step

JOINT = "joint"
Values = Mapping[str, float | Interval | None]


class Curves:
    """Records numbers of every modality over the epochs of a training run.

    Call `record` once per epoch. From a balancer it takes `Balancer.metrics` of the latest step:
    evidence, ratio and coefficient, and with ``track_every`` the norms of gradients and updates. A
    single step is noisy: `note` in the loop, and means over the steps that were noted are kept. On
    a loader of held-out data, the accuracy of each modality read alone and of the model is added.
    Whatever else shall be a curve is given by name.

    With Lightning, `training.history.History` or any other list of logged values does the same: see
    `from_history`.

    Attributes:
        epochs: for each epoch the values by name, such as ``"ratio/audio"``.

    >>> import equimodal as eq
    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> balancer = eq.Balancer(
    ...     eq.OGM(0.8), model, model.encoders, model.head, optimizer, track_every=1
    ... )
    >>> curves = Curves()
    >>> for epoch in range(2):
    ...     audio, visual, target = batch(24)
    ...     balancer.backward(balancer.loss(model(audio, visual), target))
    ...     balancer.modulate()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     balancer.end_epoch()
    ...     curves.record(balancer, [batch(24, seed=2)], epoch={"audio": epoch})
    >>> found = curves.to_dict()
    >>> list(found)
    ['loss', 'gradient_norm', 'update_norm', 'update_ratio', 'evidence', 'ratio', 'coefficient',
     'joint', 'accuracy', 'epoch']
    >>> found["epoch"]
    {'audio': [0.0, 1.0]}
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def note(self, balancer: Balancer) -> None:
        """Take the metrics of the latest step into the means of this epoch.

        It waits for the device: every step is too often on a GPU.
        """
        for name, value in balancer.metrics().items():
            if math.isfinite(value):
                self._sums[name] = self._sums.get(name, 0.0) + value
                self._counts[name] = self._counts.get(name, 0) + 1

    def record(
        self,
        watched: Balancer | Subject,
        loader: Iterable[Any] | None = None,
        *,
        metric: Metric = correct,
        **more: Values,
    ) -> None:
        """End an epoch: keep its values.

        Args:
            watched: the balancer of the run, or a subject of the model where there is none.
            loader: held-out data to read the modalities on, or None. A balancer is read by the rule
                that it predicts by.
            metric: of (logits, target), one value per sample.
            more: curves of one value per modality, such as
                ``cosine=gradients(subject, batches).cosine``.
        """
        if isinstance(watched, Balancer) and not self._counts:
            self.note(watched)
        values = {name: total / self._counts[name] for name, total in self._sums.items()}
        if loader is not None:
            values |= _read(watched, loader, metric)
        for series, by_modality in more.items():
            for name, given in by_modality.items():
                value = given.value if isinstance(given, Interval) else given
                if value is not None:
                    values[f"{series}/{name}"] = float(value)
        self.epochs.append(values)
        self._sums, self._counts = {}, {}

    @classmethod
    def from_history(
        cls,
        history: Sequence[Mapping[str, float]],
        held_out: str = "val/",
        training: str = "train/",
    ) -> Curves:
        """Return the curves of a run whose values were logged, such as ``result.history``.

        Args:
            history: for each epoch the values by name.
            held_out: what the names of values on held-out data start with: the model's, such as
                ``val/accuracy``, and those of modalities, such as ``val/accuracy/audio``.
            training: what the names of `Balancer.metrics` start with; ``"balance/"`` where the
                callback `Balance` logs them by default.
        """
        curves = cls()
        for logged in history:
            values = {}
            for name, value in logged.items():
                if name.startswith(training):
                    values[name.removeprefix(training)] = value
                elif name.startswith(held_out):
                    rest = name.removeprefix(held_out)
                    values[rest if "/" in rest else f"{JOINT}/{rest}"] = value
            curves.epochs.append(values)
        return curves

    def to_dict(self) -> dict[str, dict[str, list[float | None]]]:
        """Return JSON values: by curve and modality one value per epoch, None where there is none.

        ``"joint"`` holds curves of the model as a whole, ``"loss"`` those of the loss's terms.
        """
        found: dict[str, dict[str, list[float | None]]] = {}
        for name in dict.fromkeys(name for values in self.epochs for name in values):
            series, _, modality = name.partition("/")
            curve = [values.get(name, math.nan) for values in self.epochs]
            found.setdefault(series, {})[modality] = [
                v if math.isfinite(v) else None for v in curve
            ]
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return everything, so that a resumed run goes on with its curves."""
        return {
            "epochs": [dict(values) for values in self.epochs],
            "sums": dict(self._sums),
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.epochs = [dict(values) for values in state["epochs"]]
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])


def _read(watched: Balancer | Subject, loader: Iterable[Any], metric: Metric) -> dict[str, float]:
    """Return the metric of every modality read alone, and of the model."""
    found: dict[str, list[Tensor]] = {}
    read = watched if isinstance(watched, Subject) else Run(watched)
    with restored(watched.attached.model, loader), closed(read.steps(loader)) as steps:
        for step in steps:
            logits, alone = _predicted(watched, step)
            found.setdefault(f"{JOINT}/accuracy", []).append(rate(metric, logits, step))
            for name, each in alone.items():
                found.setdefault(f"accuracy/{name}", []).append(rate(metric, each, step))
    if not found:
        raise SetupError("curves: the loader gave no batch")
    return {name: float(torch.cat(parts).double().mean()) for name, parts in found.items()}


def _predicted(watched: Balancer | Subject, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits of the model and of every modality alone."""
    if isinstance(watched, Subject):
        return step.logits, step.unimodal
    predicting = watched.methods.owner("predict")
    logits = step.logits if predicting is None else predicting.predict(step)
    return logits, watched.alone(step)
