"""A head that runs several times in one forward: each reading is of the call that gave the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import equimodal as eq
from support import slow
from support.users import probabilities


class Once(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.audio, self.video, self.head = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(16, 3)

    def both(self, a: Tensor, v: Tensor) -> Tensor:
        return torch.cat([a, v], dim=1)

    def forward(self, a: Tensor, v: Tensor) -> Any:
        return self.head(self.both(self.audio(a), self.video(v)))


class Before(Once):
    """Without a modality, then with both."""

    def forward(self, a: Tensor, v: Tensor) -> Any:
        a, v = self.audio(a), self.video(v)
        self.without = self.head(self.both(a, v * 0))
        return self.head(self.both(a, v))


class After(Once):
    """With both, then on other features, which are kept for a loss of the user's."""

    def forward(self, a: Tensor, v: Tensor) -> Any:
        a, v = self.audio(a), self.video(v)
        logits = self.head(self.both(a, v))
        self.without = self.head(self.both(a.roll(1, 0), v))
        return logits


class Turned(After):
    """And the logits are reshaped after the head."""

    def forward(self, a: Tensor, v: Tensor) -> Any:
        return super().forward(a, v).view(len(a), 3).clone()


class Returned(After):
    def forward(self, a: Tensor, v: Tensor) -> Any:
        return super().forward(a, v), self.without


def data(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (12,), generator=generator)
    a = torch.randn(12, 4, generator=generator) + target[:, None]
    return a.double(), torch.randn(12, 5, generator=generator).double(), target


def made(kind: type[Once], **settings: Any) -> tuple[Once, torch.optim.Optimizer, eq.Balancer]:
    torch.manual_seed(0)
    model = kind().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "video": model.video}
    return model, optimizer, eq.Balancer(
        eq.OGM(0.8), model, encoders, model.head, optimizer, **settings
    )  # fmt: skip


def alone(model: Once, a: Tensor, v: Tensor) -> dict[str, Tensor]:
    left, right = model.head.weight.split(8, dim=1)
    half = model.head.bias / 2
    return {"audio": model.audio(a) @ left.T + half, "video": model.video(v) @ right.T + half}


each_kind = pytest.mark.parametrize("kind", [Before, After, Turned])


@each_kind
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_readings_are_of_the_call_that_gave_the_logits(
    kind: type[Once], trained: bool, gradients: bool
) -> None:
    model, _, balancer = made(kind)
    a, v, target = data()
    if trained:
        balancer.backward(balancer.loss(model(a, v), target))
    with torch.set_grad_enabled(gradients):
        joint, unimodal = balancer.evaluate(a, v)
        torch.testing.assert_close(joint, model(a, v))
        for name, logits in alone(model, a, v).items():
            torch.testing.assert_close(unimodal[name], logits)


@each_kind
def test_the_first_step_is_judged_by_the_call_that_gave_the_logits(kind: type[Once]) -> None:
    model, _, balancer = made(kind)
    a, v, target = data()
    scores = [probabilities(u, target) for u in alone(model, a, v).values()]
    F.cross_entropy(model(a, v), target).backward()
    factors = [slow.thresholded(ratio, 0.8) for ratio in slow.ratios(scores)]
    assert min(factors) < 1
    truth = [k * m.weight.grad for k, m in zip(factors, (model.audio, model.video), strict=True)]
    model.zero_grad()
    balancer.backward(balancer.loss(model(a, v), target))
    balancer.modulate()
    for expected, module in zip(truth, (model.audio, model.video), strict=True):
        torch.testing.assert_close(module.weight.grad, expected)


def test_check_is_told_which_call_by_the_users_forward() -> None:
    def forward(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        return model(*batch[:2])[0], batch[2]

    model, _, balancer = made(Returned, forward=forward)
    balancer.check(data())
    a, v, target = data()
    balancer.backward(balancer.loss(model(a, v)[0], target))
    with torch.no_grad(), pytest.raises(eq.MatchError, match=r"ran 2 times.*does not show"):
        balancer.evaluate(a, v)


def functional(model: Once, a: Tensor, v: Tensor) -> Tensor:
    """On weights one step of gradient descent ahead, as in meta-learning."""
    parameters = dict(model.named_parameters())
    loss = F.cross_entropy(model(a, v), torch.arange(len(a)) % 3)
    gradients = torch.autograd.grad(loss, [*parameters.values()], create_graph=True)
    ahead = {n: p - 0.5 * g for (n, p), g in zip(parameters.items(), gradients, strict=True)}
    return torch.func.functional_call(model, ahead, (a, v))  # type: ignore[no-any-return]


def exchanged(model: Once, a: Tensor, v: Tensor) -> Tensor:
    """The head's weight is another tensor during the forward."""
    weight = model.head.weight
    model.head.weight = nn.Parameter(weight.detach() * 2)
    try:
        return model(a, v)  # type: ignore[no-any-return]
    finally:
        model.head.weight = weight


def the_head_alone(model: Once, a: Tensor, v: Tensor) -> Tensor:
    ahead = {f"head.{n}": p * 2 for n, p in model.head.named_parameters()}
    return torch.func.functional_call(model, ahead, (a, v))  # type: ignore[no-any-return]


@pytest.mark.parametrize("run", [functional, exchanged, the_head_alone])
@pytest.mark.parametrize("scores", ["auto", eq.Ablation(), eq.Split()])
def test_a_forward_on_other_parameters_is_not_read_with_those_of_the_model(
    run: Callable[..., Tensor], scores: Any
) -> None:
    model, _, balancer = made(Once, scores=scores)
    a, v, target = data()
    with pytest.raises(eq.MatchError, match=r"ran on other parameters.*eq\.Probe\(\)"):
        balancer.loss(run(model, a, v), target)
    balancer.detach()
    model, optimizer, balancer = made(Once, scores=eq.Probe())
    balancer.backward(balancer.loss(run(model, a, v), target))
    balancer.modulate()
    optimizer.step()
