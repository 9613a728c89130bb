"""What each encoder reaches when it is trained without the others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from equimodal.balancer import Balancer
from equimodal.diagnostics.complete import refuse_missing
from equimodal.diagnostics.contributions.reading import Metric, correct, rate
from equimodal.diagnostics.encoders.reinitialise import reinitialise
from equimodal.diagnostics.encoders.timing import MakeOptimizer
from equimodal.diagnostics.finite import Finite
from equimodal.diagnostics.interval import RESAMPLES, Interval, mean_interval
from equimodal.diagnostics.subject import Subject
from equimodal.diagnostics.traceless import refuse_iterator
from equimodal.epochs.passes import observed, run_forward
from equimodal.epochs.randomness import restored
from equimodal.epochs.run import Run
from equimodal.errors import SetupError
from equimodal.methods.objective.unimodal import Ensemble
from equimodal.scores import Ablation
from equimodal.step import Step

MakeSchedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


@dataclass(frozen=True)
class Alone:
    """What each encoder reaches alone.

    Attributes:
        accuracy: or the mean of the metric, on the test data, by modality.
        values: the metric of every test sample, shape ``(N,)``, by modality.
        target: of the test samples, shape ``(N, ...)``.
        epochs: the epoch that was best on the validation data, counted from 0, by modality.
        validation: the metric on the validation data after every epoch, by modality.
        subject: the encoders at these epochs, for further diagnostics; its unimodal readings are
            those of their own classifiers, its head is untrained.
    """

    accuracy: dict[str, Interval]
    values: dict[str, Tensor]
    target: Tensor
    epochs: dict[str, int]
    validation: dict[str, list[float]]
    subject: Subject

    def to_dict(self) -> dict[str, Any]:
        """Return the accuracy by modality as JSON values."""
        return {name: asdict(found) for name, found in self.accuracy.items()}


def alone(
    subject: Subject,
    train_loader: Iterable[Any],
    val_loader: Iterable[Any],
    test_loader: Iterable[Any],
    optimizer: MakeOptimizer,
    epochs: int,
    *,
    fresh: Callable[[], nn.Module] | None = None,
    schedule: MakeSchedule | None = None,
    metric: Metric = correct,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Alone:
    """Train each encoder with a linear classifier of its own, without the others.

    All modalities are trained in one run that costs about as much as one joint training: the sum of
    their losses couples nothing, as long as the optimizer treats every parameter by itself. The
    model that was given stays as it is. For each modality the epoch is chosen on the validation
    data; the test data are passed over once.

    For a fair comparison train as the joint model was trained: the same settings, schedule and
    number of epochs. Unimodal references are usually under-trained.

    Args:
        subject: the jointly trained model.
        train_loader: batches as the subject takes them, passed over once per epoch. Samples may
            lack a modality where the subject's `forward` says so: they do not train its encoder.
        val_loader: held-out samples, passed over after every epoch.
        test_loader: samples to evaluate on.
        optimizer: from parameters to an optimizer, such as
            ``lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)``.
        epochs: how many.
        fresh: makes a new model like the given one, such as ``Model``: initial values are then
            those of its constructor, pretrained ones included. By default the encoders of a copy
            are drawn anew by their modules' `reset_parameters`; frozen parameters stay.
        schedule: from an optimizer to its schedule of learning rates, stepped after every epoch.
        metric: of (logits, target), one value per sample.
        resamples: of the bootstrap.
        seed: of initial values, of the order of samples, and of the bootstrap.

    Raises:
        SetupError: a loader is empty or does not end, a sample to evaluate lacks a modality, or an
            encoder cannot start anew, shares trainable parameters with another one or with the
            head, or its feature depends on what lies outside of it.

    >>> from equimodal.testing import SmallModel, batch
    >>> model = SmallModel().double()
    >>> train, val, test = ([batch(90, seed=seed)] for seed in range(3))
    >>> with Subject(model, model.encoders, model.head) as subject:
    ...     found = alone(
    ...         subject, train, val, test, lambda parameters: torch.optim.Adam(parameters, 0.03), 9
    ...     )
    >>> found.accuracy["visual"].value > found.accuracy["audio"].value > 1 / 3
    True
    """
    if epochs < 1:
        raise SetupError(f"epochs: expected 1 or more, found {epochs}")
    for loader in (train_loader, val_loader):
        refuse_iterator(loader)
    loaders = (train_loader, val_loader, test_loader)
    train_loader, val_loader = Finite(train_loader), Finite(val_loader)
    with restored(subject.model, *loaders), torch.enable_grad():
        torch.manual_seed(seed)
        model, described = _started(subject, fresh)
        method, own = Ensemble(), optimizer(list(model.parameters()))
        rates = None if schedule is None else schedule(own)
        with Balancer(method, model, optimizer=own, scores=Ablation(), seed=seed, **described) as b:
            batch = next(iter(train_loader), None)
            if batch is None:
                raise SetupError("train_loader: expected a batch or more to train on, found none")
            _refuse_outside(b, batch)
            training = _Training(b, method, val_loader, metric)
            for epoch in range(epochs):
                training.epoch(train_loader, epoch)
                if rates is not None:
                    rates.step()
            training.back_to_best()
        trained = Subject(model, scores=method.readouts, **described)
        values, target = _tested(trained, test_loader, metric)
    accuracy = {name: mean_interval(each, resamples, seed) for name, each in values.items()}
    chosen = {name: epoch for name, (epoch, _) in training.best.items()}
    return Alone(accuracy, values, target, chosen, training.validation, trained)


class _Training:
    """One run that trains all modalities, each for itself.

    Attributes:
        best: by modality the epoch that was best on the validation data, and the states of the
            encoder's modules and of the classifier after it.
        validation: the metric after every epoch.
    """

    def __init__(
        self, balancer: Balancer, method: Ensemble, val_loader: Iterable[Any], metric: Metric
    ) -> None:
        self.balancer, self.method = balancer, method
        self.val_loader, self.metric = val_loader, metric
        self.best: dict[str, tuple[int, list[dict[str, Any]]]] = {}
        self.validation: dict[str, list[float]] = {name: [] for name in balancer.names}

    def epoch(self, train_loader: Iterable[Any], epoch: int) -> None:
        """Train for an epoch, and keep what is better than before."""
        balancer, (optimizer,) = self.balancer, self.balancer.optimizers
        sampler: Any = getattr(train_loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        for batch in train_loader:
            given = run_forward(balancer.forward, balancer.attached.model, batch)
            loss = balancer.loss(*given[:2], present=given[2])
            balancer.backward(loss)
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_epoch()
        run = Run(balancer)
        for name, values in _rated(run.steps(self.val_loader), run.unimodal, self.metric).items():
            reached = float(values.double().mean())
            if not self.validation[name] or reached > max(self.validation[name]):
                states = [copy.deepcopy(part.state_dict()) for part in self._parts(name)]
                self.best[name] = (epoch, states)
            self.validation[name].append(reached)

    def back_to_best(self) -> None:
        """Put every modality back to its best epoch."""
        for name, (_, states) in self.best.items():
            for part, state in zip(self._parts(name), states, strict=True):
                part.load_state_dict(state)

    def _parts(self, name: str) -> list[nn.Module]:
        classifier = self.method.readouts.layers[self.balancer.names.index(name)]
        return [*self.balancer.attached.modalities.modules[name], classifier]


def _started(
    subject: Subject, fresh: Callable[[], nn.Module] | None
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a model whose encoders start anew, and how to describe it to a balancer."""
    attached = subject.attached
    names = {module: name for name, module in attached.bare_model.named_modules()}
    modules = {n: [names[m] for m in of] for n, of in attached.modalities.modules.items()}
    model = attached.copy_model() if fresh is None else fresh()
    model.to(next(attached.bare_model.parameters()).device).train()
    if fresh is None:
        reinitialise({n: [model.get_submodule(m) for m in of] for n, of in modules.items()})
    described = {
        **attached.described(),
        "features": attached.given,
        "criterion": subject.criterion.loss,
        "outputs": subject.criterion.given,
        "forward": subject.forward,
    }
    return model, described


def _refuse_outside(balancer: Balancer, batch: Any) -> None:
    """Refuse features that depend on what training their encoder alone would not train."""
    attached = balancer.attached
    names = {p: name for name, p in attached.bare_model.named_parameters() if p.requires_grad}
    generator = torch.Generator().manual_seed(0)
    for step in observed(attached, balancer.forward, [(batch, None)], graph=True):
        for name, feature in step.features.items():
            own = {owned.parameter for owned in attached.modalities.owned[name]}
            others = [parameter for parameter in names if parameter not in own]
            if not feature.requires_grad or not others:
                continue
            # Random weights: normalised features have a sum that depends on nothing.
            weights = torch.randn(feature.shape, generator=generator).to(feature)
            gradients = torch.autograd.grad(
                feature, others, weights, retain_graph=True, allow_unused=True
            )
            outside = [
                names[parameter]
                for parameter, gradient in zip(others, gradients, strict=True)
                if gradient is not None and gradient.any()
            ]
            if outside:
                raise SetupError(
                    f"{name} cannot be trained alone: its feature depends on parameters that its "
                    f"encoder does not own, {', '.join(outside[:5])}. Name the modules that hold "
                    f"them among encoders['{name}'], or freeze them; where another modality owns "
                    "or shares them there is no such thing as alone"
                )


def _rated(
    steps: Iterable[Step], unimodal: Callable[[Step], dict[str, Tensor]], metric: Metric
) -> dict[str, Tensor]:
    """Return the metric of every sample, shape ``(N,)``, by modality."""
    found: dict[str, list[Tensor]] = {}
    for step in steps:
        refuse_missing(step)
        for name, logits in unimodal(step).items():
            found.setdefault(name, []).append(rate(metric, logits, step))
    if not found:
        raise SetupError("a loader gave no batch: training alone needs data to validate and test")
    return {name: torch.cat(parts) for name, parts in found.items()}


def _tested(
    trained: Subject, loader: Iterable[Any], metric: Metric
) -> tuple[dict[str, Tensor], Tensor]:
    targets = []

    def noted() -> Iterator[Step]:
        for step in trained.steps(loader):
            ignored = step.criterion.ignored(step.target)
            targets.append((step.target if ignored is None else step.target[~ignored]).cpu())
            yield step

    values = _rated(noted(), lambda step: step.unimodal, metric)
    return values, torch.cat(targets)
