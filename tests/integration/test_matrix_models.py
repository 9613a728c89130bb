"""Every method on every kind of model and criterion: equal to the truth, or refused.

The companion of `test_matrix`, which has every method in every kind of loop.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from support.settings import METHODS, VARIANTS

ALL = {**METHODS, **VARIANTS, "ogm, probe": lambda: eq.OGM(0.8)}
each_method = pytest.mark.parametrize("name", ALL)
REFUSALS = (eq.SetupError, eq.MatchError, eq.StepError)


class Normalised(testing.SmallModel):
    """Returns logarithms of probabilities."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs).log_softmax(1)


class Branching(nn.Module):
    """A backbone that both modalities go through, and a decoder for a loss of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"audio": nn.Linear(4, 8), "visual": nn.Linear(5, 8)})
        self.backbone, self.head = nn.Linear(8, 8), nn.Linear(16, testing.CLASSES)
        self.decoder = nn.Linear(8, 4)
        self.decoded: Tensor | None = None

    def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
        first, second = (
            self.backbone(encoder(x).relu()).tanh()
            for encoder, x in zip(self.encoders.values(), (audio, visual), strict=True)
        )
        self.decoded = self.decoder(first)
        return self.head(torch.cat([first, second], dim=1))  # type: ignore[no-any-return]


def made(
    name: str,
    kind: Callable[[], nn.Module] | None = None,
    before: Callable[[Any], Any] = lambda model: None,
    **settings: Any,
) -> Any:
    make = ALL[name]
    if name == "mcr":  # with reconstruction it reads how large logits are, which no loss tells
        make = lambda: eq.MCR(permutations=4)  # noqa: E731
    torch.manual_seed(0)
    model: Any = (kind or getattr(make, "tried_on", lambda: testing.SmallModel(2)))()
    model.double()
    before(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data, held_out = testing.batch(24), testing.batch(24, seed=2)
    balancer = eq.Balancer(
        make(),
        model,
        dict(model.encoders.items()),
        model.head,
        optimizer,
        train_loader=DataLoader(TensorDataset(*data), 12),
        val_loader=DataLoader(TensorDataset(*held_out), 12),
        epochs=2,
        **{"scores": eq.Probe() if "probe" in name else "auto", **settings},
    )
    return model, optimizer, balancer


def parameters_of(model: Any, modality: str) -> list[nn.Parameter]:
    encoder = model.encoders[modality]
    return [
        p
        for part in (encoder if isinstance(encoder, list) else [encoder])
        for p in part.parameters()
    ]


def epochs(balancer: eq.Balancer, count: int = 2) -> Iterator[tuple[Tensor, ...]]:
    loader = DataLoader(TensorDataset(*testing.batch(24)), 12)
    for _ in range(count):
        for batch in balancer.batches(loader):
            yield tuple(batch)
        balancer.end_epoch()


def weights(model: nn.Module, balancer: eq.Balancer) -> Tensor:
    return torch.cat(
        [p.detach().flatten() for p in (*model.parameters(), *balancer.own.parameters)]
    )


def run(
    model: Any, optimizer: Any, balancer: eq.Balancer, compiled: bool = False, count: int = 2
) -> Tensor:
    forward = torch.compile(model, backend="eager") if compiled else model
    for *inputs, target in epochs(balancer, count):
        for _ in balancer.passes():
            balancer.backward(balancer.loss(forward(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model, balancer)


def same(found: Tensor, truth: Tensor) -> None:
    assert truth.isfinite().all()
    torch.testing.assert_close(found, truth, rtol=1e-6, atol=1e-8)


@each_method
def test_logarithms_of_probabilities_train_as_logits_do(name: str) -> None:
    if hasattr(ALL[name], "tried_on"):
        pytest.skip("its model has outputs of its own")
    world = made(name, lambda: Normalised(2), criterion=nn.NLLLoss())
    same(run(*world), run(*made(name)))


def own_loss(model: nn.Module, logits: Tensor, inputs: list[Tensor]) -> Tensor:
    decoded = getattr(model, "decoded", None)
    if decoded is None:
        return logits.square().mean()
    return F.mse_loss(decoded, inputs[0]) + 0.1 * logits.square().mean()


@each_method
def test_what_belongs_to_no_modality_has_the_gradient_of_the_returned_loss(name: str) -> None:
    """A shared backbone, a decoder and the head, under a loss of the user's beside ours."""
    kind = None if hasattr(ALL[name], "tried_on") else Branching
    settings = {"features": {"audio": slice(0, 8), "visual": slice(8, 16)}} if kind else {}
    model, optimizer, balancer = made(name, kind, **settings)
    combined = any(method.combines_rest for method in balancer.methods)
    inside = {p for modality in balancer.names for p in parameters_of(model, modality)}
    rest = {n: p for n, p in model.named_parameters() if p not in inside}
    if combined:  # such methods scale what the joint loss does there; not the user's own
        rest = {n: p for n, p in rest.items() if n.startswith("decoder")}
    seen = 0
    for *inputs, target in epochs(balancer):
        of_rest = list(rest.values())
        for number in balancer.passes():
            logits = model(*inputs)
            loss = balancer.loss(logits, target) + own_loss(model, logits, inputs)
            if number == 1:
                truth = torch.autograd.grad(loss, of_rest, retain_graph=True, allow_unused=True)
            balancer.backward(loss)
        balancer.modulate()
        for (n, p), expected in zip(rest.items(), truth, strict=True):
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            expected = torch.zeros_like(p) if expected is None else expected
            torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-12, msg=n)
            seen += bool(expected.any())
        optimizer.step()
        optimizer.zero_grad()
    assert seen


@each_method
def test_a_compiled_model_trains_as_it_does_eagerly_or_is_refused(name: str) -> None:
    model, optimizer, balancer = made(name)
    truth = run(model, optimizer, balancer, count=1)
    torch.compiler.reset()
    model, optimizer, balancer = made(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the compiler
            balancer.check(testing.batch(12))
            found = run(model, optimizer, balancer, compiled=True, count=1)
    except REFUSALS as error:
        refused = str(error)
    else:
        refused = ""
        same(found, truth)
    assert not refused or "compile" in refused


# What is learned, while the encoder does not train, from gradients that it does not have.
LEARNING = {"greedy", "inforeg", "gradient-blending", "ogm-ge, smoothed, noise per element"}


@each_method
def test_an_encoder_may_train_from_the_second_epoch_on(name: str) -> None:
    """As if its gradients had been dropped before every step of the first."""
    late, dropped = staged(name, frozen=True), staged(name, frozen=False)
    if name in LEARNING:
        assert late.isfinite().all()
    else:
        same(late, dropped)


def staged(name: str, frozen: bool) -> Tensor:
    def before(model: Any) -> None:
        for p in parameters_of(model, "visual"):
            p.requires_grad_(not frozen)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", eq.BalanceWarning)  # that it does not train yet
        model, optimizer, balancer = made(name, before=before)
    visual = parameters_of(model, "visual")
    start = [p.detach().clone() for p in visual]
    for number, (*inputs, target) in enumerate(epochs(balancer)):
        if number == 2:
            for p in visual:
                p.requires_grad_(True)
        for _ in balancer.passes():
            balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        if number < 2:
            for p in visual:
                p.grad = None
        optimizer.step()
        optimizer.zero_grad()
    if name not in ("unimodal", "reconboost", "data-remixing"):  # which may train the other alone
        assert any(not torch.equal(p, was) for p, was in zip(visual, start, strict=True))
    return weights(model, balancer)
