"""Encoders that train later: unfrozen, or added to the optimizer, after the balancer was made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import equimodal as eq
from equimodal import testing
from support import slow

Stage = Callable[[nn.Module, torch.optim.Optimizer], None]


def frozen(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.encoders["visual"].requires_grad_(False)
    optimizer.add_param_group({"params": [*model.encoders["visual"].parameters()]})


def frozen_and_left_out(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.encoders["visual"].requires_grad_(False)


def left_out(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Trainable, and no optimizer holds it."""


def unfrozen(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    visual = [*model.encoders["visual"].parameters()]
    model.encoders["visual"].requires_grad_(True)
    model.zero_grad()
    if not any(p is visual[0] for group in optimizer.param_groups for p in group["params"]):
        optimizer.add_param_group({"params": visual})


STAGES: list[Stage] = [frozen, frozen_and_left_out, left_out]
each_stage = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)


def made(kind: type[torch.optim.Optimizer]) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = testing.SmallModel(2).double()
    early = [p for name, p in model.named_parameters() if "visual" not in name]
    return model, kind(early, lr=0.1)


def alone(model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    """Logits of each modality through the linear head, half of the bias each."""
    with torch.no_grad():
        z = [encoder(x) for encoder, x in zip(model.encoders.values(), inputs, strict=True)]
        weights = model.head.weight.split([f.shape[1] for f in z], dim=1)
        return [f @ w.T + model.head.bias / 2 for f, w in zip(z, weights, strict=True)]


def by_hand(stage: Stage, kind: type[torch.optim.Optimizer], space: str) -> nn.Module:
    model, optimizer = made(kind)
    stage(model, optimizer)
    for number in range(6):
        if number == 3:
            unfrozen(model, optimizer)
        *inputs, target = testing.batch(12, seed=number)
        scores = [slow.score(u.numpy(), target.tolist()) for u in alone(model, inputs)]
        F.cross_entropy(model(*inputs), target).backward()
        factors = [slow.thresholded(ratio, 0.8) for ratio in slow.ratios(scores)]
        before = {p: p.detach().clone() for p in model.parameters()}
        for factor, encoder in zip(factors, model.encoders.values(), strict=True):
            for p in encoder.parameters():
                if space == "gradient" and p.ndim >= 2 and p.grad is not None:
                    p.grad.mul_(factor)
        optimizer.step()
        for factor, encoder in zip(factors, model.encoders.values(), strict=True):
            for p in encoder.parameters():
                if space == "update" and p.ndim >= 2:
                    p.data.copy_(before[p] + factor * (p.detach() - before[p]))
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("space", ["gradient", "update"])
@each_stage
def test_it_is_modulated_from_the_step_in_which_it_trains(stage: Stage, space: str) -> None:
    kind = torch.optim.SGD if space == "gradient" else torch.optim.Adam
    model, optimizer = made(kind)
    stage(model, optimizer)
    encoders = dict(model.encoders.items())
    with pytest.warns(eq.BalanceWarning, match=r"encoders\['visual'\]") as said:
        balancer = eq.Balancer(
            eq.OGM(0.8, space=space), model, encoders, model.head, optimizer, track_every=1
        )
    assert len(said) == 1
    for number in range(6):
        if number == 3:
            unfrozen(model, optimizer)
        *inputs, target = testing.batch(12, seed=number)
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    truth = dict(by_hand(stage, kind, space).named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, truth[name], rtol=1e-6, atol=1e-9, msg=name)
    assert balancer.metrics()["update_norm/visual"] > 0


@each_stage
def test_an_adam_that_would_cancel_the_coefficient_is_said_before_it_has_the_encoder(
    stage: Stage,
) -> None:
    model, optimizer = made(torch.optim.Adam)
    stage(model, optimizer)
    with pytest.warns(eq.BalanceWarning) as said:
        eq.Balancer(eq.OGM(0.8), model, dict(model.encoders.items()), model.head, optimizer)
    assert any("does not follow the size of gradients" in str(each.message) for each in said)


def test_all_encoders_may_come_later() -> None:
    """A head that is trained first, alone, on features of encoders that are not."""
    torch.manual_seed(0)
    model = testing.SmallModel(2).double()
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    with pytest.warns(eq.BalanceWarning) as said:
        balancer = eq.Balancer(
            eq.OGM(0.8), model, dict(model.encoders.items()), model.head, optimizer
        )
    assert len({str(each.message) for each in said}) == len(model.encoders)
    moved = []
    for number in range(2):
        if number == 1:
            optimizer.add_param_group({"params": [*model.encoders.parameters()]})
        model.zero_grad()
        before = [p.detach().clone() for p in model.encoders.parameters()]
        *inputs, target = testing.batch(12, seed=number)
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
        after = model.encoders.parameters()
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == [False, True]
