"""Faults that need an odd encoder, optimizer or moment, each of which went by without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from support.worlds import World, batch, train


class Words(nn.Module):
    """A text encoder whose embedding has sparse gradients, or none at all."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, sparse=sparse)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embed(ids).mean(1)  # type: ignore[no-any-return]


class Pair(nn.Module):
    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.text, self.image, self.head = Words(sparse), nn.Linear(5, 8), nn.Linear(16, 3)

    def forward(self, text: Tensor, image: Tensor) -> Tensor:
        return self.head(torch.cat([self.text(text), self.image(image)], dim=1))  # type: ignore[no-any-return]


def stepped(model: Pair, method: eq.Method, keep: bool, silent: bool) -> Tensor:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"text": model.text, "image": model.image}
    balancer = eq.Balancer(method, model, encoders, model.head, optimizer, epochs=2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        ids = torch.randint(20, (6, 4), generator=generator)
        loss = balancer.loss(
            model(ids, torch.randn(6, 5, generator=generator)), torch.arange(6) % 3
        )
        balancer.backward(loss * 0 if silent else loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad(set_to_none=not keep)
    own = [p.detach().flatten() for p in balancer.own.parameters]
    return torch.cat([*[p.detach().flatten() for p in model.parameters()], *own])


@pytest.mark.parametrize("make", [eq.ReconBoost, eq.MultiLoss, eq.MLA, eq.Ensemble])
def test_sparse_gradients_train_a_methods_own_modules_as_dense_ones_do(
    make: Callable[[], eq.Method],
) -> None:
    found = []
    for sparse in (False, True):
        torch.manual_seed(0)
        found.append(stepped(Pair(sparse), make(), keep=False, silent=False))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("make", [eq.ReconBoost, eq.MultiLoss, eq.Ensemble])
def test_gradients_of_zero_leave_a_methods_own_modules_finite(
    make: Callable[[], eq.Method], keep: bool
) -> None:
    torch.manual_seed(0)
    assert stepped(Pair(), make(), keep, silent=True).isfinite().all()


def test_one_sample_has_no_mean_and_this_is_said_once() -> None:
    for size, count in ((1, 1), (2, 0)):
        world = World()
        balancer = world.balance(eq.OGM(0.8), scores=eq.Ablation("mean"))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            train(balancer, [batch(size), batch(size, seed=2)])
        assert sum("micro-batch of one sample" in str(each.message) for each in said) == count


def test_evidence_without_its_gradients_is_dropped_and_said() -> None:
    world, other, plain = World(), World(), World()
    balancer = world.balance(eq.OGM(0.8))
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target) / 2)
    resumed = other.balance(eq.OGM(0.8))
    resumed.load_state_dict(balancer.state_dict())
    with pytest.warns(eq.BalanceWarning, match="saved between micro-batches"):
        train(resumed, [batch(seed=2)])
    train(plain.balance(eq.OGM(0.8)), [batch(seed=2)])
    for p, q in zip(other.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_optimizers_of_one_parameter_each_couple_nothing() -> None:
    world = World()
    each: Any = [torch.optim.SGD([p], lr=0.1) for p in world.model.parameters()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eq.Balancer(eq.OGM(0.8), world.model, world.encoders, world.model.head, each)


def test_lazy_modules_are_refused_with_what_to_do() -> None:
    model: Any = Pair()
    model.image = nn.LazyLinear(8)
    encoders = {"text": model.text, "image": model.image}
    with pytest.raises(eq.SetupError, match=r"\['image'\] has lazy modules.*run the model once"):
        eq.Balancer(
            eq.OGM(0.8), model, encoders, model.head, torch.optim.SGD(model.parameters(), lr=0.1)
        )


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("headed", [False, True])
def test_a_module_of_two_modalities_is_refused(nested: bool, headed: bool) -> None:
    model: Any = Pair()
    extra = [model.text] if nested else []
    encoders = {
        "first": [model.image, *extra],
        "second": [*extra, model.text if extra else model.image],
    }
    with pytest.raises(eq.SetupError, match=r"name the same module.*features="):
        eq.Balancer(
            eq.Joint(),
            model,
            encoders,
            model.head if headed else None,
            torch.optim.SGD(model.parameters(), lr=0.1),
        )
