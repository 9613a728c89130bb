"""The methods that fit the contract worst, in small: the contract was settled on these.

They are not the library's methods. Each has the shape that makes it hard: several gradients, a step
per modality, dropped samples, prototypes at the end of an epoch, copies that are trained, data that
is resampled, phases that alternate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.epochs.run import Run
from equimodal.system import ranks


class SeveralGradients(eq.Method):
    """MMPareto's shape: an encoder's gradient is made of that of each loss, tensor by tensor."""

    name = "several-gradients"

    def __init__(self) -> None:
        super().__init__()
        self.readouts = eq.Readouts()

    def build(self, shapes: eq.Shapes) -> None:
        self.readouts.build(shapes, 1)

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        logits = self.readouts(step.features)
        return {"unimodal": torch.stack([step.loss(logits[n]) for n in self.names]).sum()}

    def combine(self, modality: str, gradients: Mapping[str, list[Tensor]]) -> list[Tensor]:
        joint, alone = gradients["joint"], gradients["unimodal"]
        flat = [torch.cat([g.flatten() for g in of]) for of in (joint, alone)]
        difference = flat[1] - flat[0]
        weight = (flat[1] @ difference / (difference @ difference)).clamp(0.001, 0.999)
        weight = torch.where(flat[0] @ flat[1] > 0, 0.5, weight)
        return [3 * (weight * a + (1 - weight) * b) for a, b in zip(joint, alone, strict=True)]


class StepPerModality(eq.Method):
    """MLA's shape: a shared head stepped between the modalities, and a prediction of its own."""

    name = "step-per-modality"
    replaces_joint = True
    capabilities = eq.Capabilities(accumulation="per micro-batch")

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.ModuleList()

    def build(self, shapes: eq.Shapes) -> None:
        if not self.shared:
            with torch.random.fork_rng():
                torch.manual_seed(1)
                width = next(iter(shapes.features.values()))[-1]
                layer = nn.Linear(width, shapes.logits[0], dtype=torch.float64)
            self.shared.append(layer.requires_grad_(False))

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        head = self.shared[0]
        assert isinstance(head, nn.Linear)
        terms = {"joint": step.logits.new_zeros(())}
        for name in step.names:
            weight = head.weight.clone().requires_grad_()
            terms[name] = step.loss(nn.functional.linear(step.features[name], weight, head.bias))
            (gradient,) = torch.autograd.grad(terms[name], [weight], retain_graph=True)
            ranks.average_([gradient])
            head.weight -= 0.05 * gradient
        return terms

    def predict(self, step: eq.Step) -> Tensor:
        logits = torch.stack([self.shared[0](step.features[name]) for name in step.names])
        entropy = -(logits.softmax(2) * logits.log_softmax(2)).sum(2)
        return ((-entropy).softmax(0)[..., None] * logits).sum(0)


class DropsSamples(eq.Method):
    """OPM's shape: needs this batch's evidence before the head, and leaves samples out."""

    name = "drops-samples"
    replaces_joint = True
    needs = frozenset({"scores"})
    capabilities = eq.Capabilities(accumulation="per micro-batch")

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        log_scores, _ = step.log_scores()
        ratios = eq.functional.discrepancy_ratio(log_scores)
        kept, features = torch.zeros(step.size, dtype=torch.bool), {}
        for index, name in enumerate(step.names):
            leads = ratios[index] > 1
            keep = ~(leads & (torch.arange(step.size) % 3 == 0))
            features[name] = step.features[name] * keep[:, None]
            kept |= keep & (torch.arange(step.size) % 4 != 0)
        return {"joint": step.loss(step.head(features), weight=kept)}


class EpochEnd(eq.Method):
    """PMR's shape: class means of the features, made at the end of an epoch, shape the loss."""

    name = "epoch-end"
    needs = frozenset({"training data"})

    def build(self, shapes: eq.Shapes) -> None:
        width = next(iter(shapes.features.values()))[-1]
        if not hasattr(self, "prototypes"):
            zeros = torch.zeros(len(self.names), *shapes.logits, width, dtype=shapes.dtype)
            self.register_buffer("prototypes", zeros)

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        if step.epoch == 0:
            return {}
        distances = [
            torch.cdist(step.features[name], self.prototypes[index]).neg()
            for index, name in enumerate(step.names)
        ]
        return {"prototypes": torch.stack([step.loss(d) for d in distances]).sum()}

    def end_epoch(self, run: Run) -> None:
        assert run.train_loader is not None
        sums: Any = 0
        counts: Any = 0
        for step in run.steps(run.train_loader):
            one_hot = nn.functional.one_hot(step.target, 3).to(step.logits)
            sums = sums + torch.stack([one_hot.T @ step.features[name] for name in step.names])
            counts = counts + one_hot.sum(0)
        self.prototypes.copy_(sums / counts[:, None])


class TrainsCopies(eq.Method):
    """Gradient-Blending's shape: weights of losses come from copies that are trained on."""

    name = "trains-copies"
    needs = frozenset({"training data", "held-out data"})
    replaces_joint = True

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self.register_buffer("weights", torch.ones(len(names) + 1, dtype=torch.float64))

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        losses = [step.loss(step.unimodal[name]) for name in step.names]
        terms = dict(zip((*step.names, "joint"), [*losses, step.joint], strict=True))
        return {n: w * term for (n, term), w in zip(terms.items(), self.weights, strict=True)}

    def end_epoch(self, run: Run) -> None:
        assert run.train_loader is not None
        assert run.val_loader is not None
        gains = []
        for method in (*(eq.Unimodal(name) for name in run.names), eq.Joint()):
            fork = run.fork(method)
            fork.train(run.train_loader, epochs=1)
            before = torch.stack([step.joint for step in run.steps(run.val_loader)]).mean()
            after = torch.stack(
                [
                    step.criterion.total(method.predict(step), step.target)
                    for step in fork.steps(run.val_loader)
                ]
            ).mean()
            gains.append((before - after).abs())
        self.weights = torch.stack(gains) / torch.stack(gains).sum()


class Resamples(eq.Method):
    """Modality valuation's shape: hard samples come again, with one modality alone."""

    name = "resamples"
    needs = frozenset({"training data", "sample identities"})

    def __init__(self) -> None:
        super().__init__()
        self.extra: dict[str, list[int]] = {}

    def order(self, samples: int, epoch: int) -> eq.Order | None:
        if epoch == 0:
            return None
        generator = torch.Generator().manual_seed(epoch)
        indices = list(range(samples))
        keep = {name: [True] * samples for name in self.names}
        for kept, of in self.extra.items():
            indices += of
            for name in self.names:
                keep[name] += [name == kept] * len(of)
        shuffled = torch.randperm(len(indices), generator=generator)
        return eq.Order(
            [indices[i] for i in shuffled],
            {name: torch.tensor(flags)[shuffled] for name, flags in keep.items()},
        )

    def end_epoch(self, run: Run) -> None:
        assert run.train_loader is not None
        self.extra = {name: [] for name in run.names}
        for step in run.steps(run.train_loader, identify=True):
            assert step.indices is not None
            for name in run.names:
                alone = {
                    n: f if n == name else torch.zeros_like(f) for n, f in step.features.items()
                }
                wrong = step.head(alone).argmax(1) != step.target
                self.extra[name] += step.indices[wrong].tolist()

    def get_extra_state(self) -> dict[str, list[int]]:
        return self.extra

    def set_extra_state(self, state: dict[str, list[int]]) -> None:
        self.extra = state


class Alternates(eq.Method):
    """ReconBoost's shape: one modality at a time, then all together, in phases of epochs."""

    name = "alternates"
    replaces_joint = True

    def bind(self, names: tuple[str, ...], seed: int) -> None:
        super().bind(names, seed)
        self.register_buffer("phase", torch.zeros((), dtype=torch.long))

    @property
    def turn(self) -> str | None:
        phase = int(self.phase) % (2 * len(self.names))
        return None if phase % 2 else self.names[phase // 2]

    def objective(self, step: eq.Step) -> dict[str, Tensor]:
        if self.turn is None:
            return {"joint": step.joint}
        others = sum(step.unimodal[n].detach() for n in step.names if n != self.turn)
        return {"joint": step.loss(step.unimodal[self.turn] + 0.5 * others)}

    def frozen(self) -> frozenset[str]:
        return frozenset() if self.turn is None else frozenset(self.names) - {self.turn}

    def end_epoch(self, run: Run) -> None:
        self.phase += 1
        for name in run.names:
            run.reset_optimizer(name)

    def predict(self, step: eq.Step) -> Tensor:
        return torch.stack(list(step.unimodal.values())).sum(0)


ALL: tuple[type[eq.Method], ...] = (
    SeveralGradients,
    StepPerModality,
    DropsSamples,
    EpochEnd,
    TrainsCopies,
    Resamples,
    Alternates,
)
