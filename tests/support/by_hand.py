"""Methods written into a training loop in plain torch, for models of `support.families`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.noise import mix
from support import slow
from support.families import Family
from support.strangers import WIDTH

ALPHA, STEPS = 0.8, 3
Features = dict[str, Tensor]


def owned(model: Any) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of every encoder, in the order of the model."""
    names = {}
    for name, given in model.encoders().items():
        for part in given if isinstance(given, list) else [given]:
            raw = dict(model.named_parameters())[part] if isinstance(part, str) else part
            names |= dict.fromkeys(raw.parameters() if isinstance(raw, nn.Module) else [raw], name)
    found: dict[str, list[nn.Parameter]] = {name: [] for name in model.encoders()}
    for parameter in model.parameters():
        if parameter in names:
            found[names[parameter]].append(parameter)
    return found


def others(z: Features, kept: str) -> Features:
    """Return the features with all but one at zero."""
    return {n: f if n == kept else torch.zeros_like(f) for n, f in z.items()}


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    model.eval()
    yield
    model.train()


def alone(model: Family, z: Features) -> Features:
    """Return the logits of every modality by itself."""
    if "scores" in model.settings():
        return model.settings()["scores"](z)  # type: ignore[no-any-return]
    with evaluated(model):
        return {n: model.logits(model.fuse(others(z, n))) for n in z}


def factors(model: Family, z: Features, target: Tensor) -> list[float]:
    """Return OGM's coefficients, from the probability of the true class."""
    with torch.no_grad():
        each = {name: model.each(u, target) for name, u in alone(model, z).items()}
    scores = [sum(math.exp(-float(loss)) for loss in losses) for losses in each.values()]
    return [slow.thresholded(ratio, ALPHA) for ratio in slow.ratios(scores)]


class Loop:
    """One optimizer for the model and one for what a method adds; each method is one function."""

    def __init__(self, make: Callable[[], Family]) -> None:
        torch.manual_seed(0)
        self.model = make().double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.readouts = eq.Readouts()
        self.own: torch.optim.Optimizer | None = None
        self.moved: set[float] = set()
        self.running = torch.zeros(2, dtype=torch.float64)
        self.step = 0

    def run(self, method: Callable[[Loop, list[Tensor], Tensor], None]) -> Family:
        for self.step in range(STEPS):
            inputs, target = self.model.batch(self.step)
            method(self, inputs, target)
            for optimizer in (self.optimizer, self.own):
                if optimizer is not None:
                    optimizer.step()
                    optimizer.zero_grad()
        return self.model

    def classified(self, z: Features, logits: Tensor) -> Features:
        """Return logits of a linear layer on the vector of every modality."""
        if self.own is None:
            widths = dict.fromkeys(z, (WIDTH,))
            shapes = eq.Shapes(widths, (*logits.shape[1:],), torch.device("cpu"), torch.float64)
            self.readouts.build(shapes, mix(0, 1))
            self.own = torch.optim.SGD(self.readouts.parameters(), lr=0.1, momentum=0.9)
        return self.readouts(self.model.vectors(z))  # type: ignore[no-any-return]


def ogm(loop: Loop, inputs: list[Tensor], target: Tensor, noisy: bool = False) -> None:
    model = loop.model
    ks = factors(model, model.features(*inputs), target)
    loop.moved.update(ks)
    output = model(*inputs)
    (model.loss(model.logits(output), target) + model.own(output, target)).backward()
    number = -1
    for k, parameters in zip(ks, owned(model).values(), strict=True):
        for p in parameters:
            number += 1
            if p.ndim < 2 or p.grad is None:
                continue
            sigma = slow.standard_deviation(p.grad.numpy()) + 1e-8
            p.grad.mul_(k)
            if noisy:
                p.grad.add_(slow.noise(p.shape, p.dtype, 0, loop.step, number), alpha=sigma)


def ogm_ge(loop: Loop, inputs: list[Tensor], target: Tensor) -> None:
    """The noise is drawn as documented, so that even it is the same."""
    ogm(loop, inputs, target, noisy=True)


def multi_loss(loop: Loop, inputs: list[Tensor], target: Tensor, joint: float = 1.0) -> None:
    model = loop.model
    z = model.features(*inputs)
    output = model.fuse(z)
    logits = model.logits(output)
    unimodal = [model.loss(u, target) for u in loop.classified(z, logits).values()]
    loss = sum(unimodal) + model.own(output, target)
    (loss + model.loss(logits, target) if joint else loss).backward()  # type: ignore[union-attr]


def ensemble(loop: Loop, inputs: list[Tensor], target: Tensor) -> None:
    multi_loss(loop, inputs, target, joint=0.0)


def mmpareto(loop: Loop, inputs: list[Tensor], target: Tensor) -> None:
    model = loop.model
    z = model.features(*inputs)
    output = model.fuse(z)
    logits = model.logits(output)
    joint = model.loss(logits, target)
    unimodal = {n: model.loss(u, target) for n, u in loop.classified(z, logits).items()}
    combined: dict[nn.Parameter, Tensor] = {}
    for name, parameters in owned(model).items():
        trained = [p for p in parameters if p.requires_grad]
        g, u = (
            [torch.zeros_like(p) if d is None else d for p, d in zip(trained, of, strict=True)]
            for of in (
                torch.autograd.grad(t, trained, retain_graph=True, allow_unused=True)
                for t in (joint, unimodal[name])
            )
        )
        gg, gu, uu = (
            sum(float((a * b).sum()) for a, b in zip(*pair, strict=True))
            for pair in ((g, g), (g, u), (u, u))
        )
        weight = 0.5
        if gu <= 0:
            weight = (uu - gu) / (gg + uu - 2 * gu)
        for p, a, b in zip(trained, g, u, strict=True):
            h = 2 * weight * a + 2 * (1 - weight) * b
            norm = float(h.norm())
            longer = max(1.0, float((a + b).norm()) / norm) if norm else 1.0
            combined[p] = 1.5 * longer * h - a - b
    (joint + sum(unimodal.values()) + model.own(output, target)).backward()
    for p, change in combined.items():
        p.grad = change if p.grad is None else p.grad + change


def agm(loop: Loop, inputs: list[Tensor], target: Tensor) -> None:
    model = loop.model
    z = model.features(*inputs)
    output = model.fuse(z)
    logits = model.logits(output)
    (one, two) = alone(model, z).values()
    responses = [(logits - two + one) / 2, (logits - one + two) / 2]
    losses = torch.stack(
        [model.each(r.detach(), target).clamp(max=-math.log(1e-8)).mean() for r in responses]
    )
    before = loop.running
    past = [math.exp(float(before[1 - m] - before[m])) for m in (0, 1)]
    now = [math.exp(float(losses[1 - m] - losses[m])) for m in (0, 1)]
    loop.running = before + (losses - before) / (loop.step + 1)
    scaled = logits.detach()
    for response, reference, ratio in zip(responses, past, now, strict=True):
        k = math.exp(min(reference - ratio, 10.0))
        loop.moved.add(k)
        scaled = scaled + k * (response - response.detach())
    (model.loss(scaled, target) + model.own(output, target)).backward()


def dgl(loop: Loop, inputs: list[Tensor], target: Tensor) -> None:
    model = loop.model
    z = model.features(*inputs)
    inside = {p for of in owned(model).values() for p in of}
    head = [p for p in model.parameters() if p not in inside and p.requires_grad]
    joint = model.loss(model.logits(model.fuse({n: f.detach() for n, f in z.items()})), target)
    own = model.own(model.fuse(z), target)
    for p in head:
        p.requires_grad_(False)
    unimodal = [model.loss(model.logits(model.fuse(others(z, n))), target) for n in z]
    for p in head:
        p.requires_grad_(True)
    (joint + 4 * sum(unimodal) + own).backward()


METHODS: dict[str, tuple[Callable[..., None], Callable[[], eq.Method]]] = {
    "ogm-ge": (ogm_ge, lambda: eq.OGMGE(ALPHA)),
    "ogm": (ogm, lambda: eq.OGM(ALPHA)),
    "multi-loss": (multi_loss, eq.MultiLoss),
    "ensemble": (ensemble, eq.Ensemble),
    "mmpareto": (mmpareto, eq.MMPareto),
    "agm": (agm, eq.AGM),
    "dgl": (dgl, eq.DGL),
}
