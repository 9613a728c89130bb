"""Answers of teachers that are kept: the same training, and refusals where none can come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.methods.remembered import Remembered
from support.teachers import teachers
from support.worlds import World, batch, weights

MAKE: dict[str, Callable[..., Any]] = {
    "umt": eq.UMT,
    "g2d": lambda given, **settings: eq.G2D(given, gating=(0, 1), **settings),
}
DATA = batch(24)


class Counting(nn.Module):
    """A teacher that counts the samples it is asked about."""

    def __init__(self, teacher: nn.Module, asked: list[int]) -> None:
        super().__init__()
        self.teacher = teacher
        self.asked = (asked,)  # also of a copy

    def __deepcopy__(self, memo: Any) -> Counting:
        return Counting(self.teacher, self.asked[0])

    def forward(self, x: Tensor) -> Any:
        self.asked[0].append(len(x))
        return self.teacher(x)


def trained(
    make: Callable[..., Any], epochs: int = 3, noise: float = 0.0, **settings: Any
) -> tuple[Tensor, list[int], Any]:
    """Train on shuffled batches, of which the last is smaller."""
    asked: list[int] = []
    method = make({n: Counting(t, asked) for n, t in teachers().items()}, **settings)
    world = World()
    balancer = world.balance(method)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(24, generator=generator).split(10):
            *inputs, target = (tensor[rows] for tensor in DATA)
            inputs = [x + noise * torch.randn(x.shape, generator=generator) for x in inputs]
            balancer.backward(balancer.loss(world.model(*inputs), target))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        balancer.end_epoch()
    return weights(world.model), asked, method


@pytest.mark.parametrize("name", MAKE)
def test_training_is_the_same_and_every_sample_is_asked_about_once(name: str) -> None:
    plain, asked, _ = trained(MAKE[name])
    kept, asked_once, method = trained(MAKE[name], cached=True)
    torch.testing.assert_close(kept, plain, rtol=1e-9, atol=1e-12)
    assert sum(asked) == 2 * 3 * 24
    halves = 2 * 5  # of the first batch, to see that samples do not depend on each other
    assert sum(asked_once) == 2 * 24 + halves
    assert 2 * 24 * (8 + 3) * 8 <= method.remembered <= 2 * 2 * 24 * (8 + 3) * 8


def test_random_augmentation_is_refused_after_an_epoch() -> None:
    with pytest.raises(eq.MatchError, match=r"UMT, cached=True: none of the 24 .* augmentation"):
        trained(eq.UMT, noise=0.1, cached=True)
    trained(eq.UMT, noise=0.1)


def doubled(inputs: Any) -> tuple[Tensor, ...]:
    ((x, *_), _) = inputs
    return (2 * x,)


def ask(known: Remembered, *args: Any, answer: Any = doubled, epoch: int = 0, **kwargs: Any) -> Any:
    return known.answers((args, kwargs), len(args[0]), epoch, answer)[0]


def test_a_sample_is_known_by_all_its_bits() -> None:
    known = Remembered("UMT")
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    assert torch.equal(ask(known, x), 2 * x)
    assert known.nbytes == 2 * 2 * 4  # one is there twice
    calls: list[Any] = []

    def noted(inputs: Any) -> tuple[Tensor, ...]:
        calls.append(len(inputs[0][0]))
        return doubled(inputs)

    again = torch.tensor([[3.0, 4.0], [-1.0, -2.0], [1.0, 2.0]])  # two signs differ
    assert torch.equal(ask(known, again, answer=noted), 2 * again)
    ask(known, x.double(), answer=noted)
    ask(known, x, answer=noted)
    ask(known, x, mask=torch.ones(3, 1, dtype=torch.bool), scale=2.0, answer=noted)
    ask(known, x, mask=torch.ones(3, 1, dtype=torch.bool), scale=2.0, answer=noted)
    ask(known, x, mask=torch.ones(3, 1, dtype=torch.bool), scale=3.0, answer=noted)
    assert calls == [1, 3, 3, 3]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((torch.ones(3, 2), torch.ones(5)), r"no row for each of 3 samples"),
        ((torch.ones(3, 2), object()), "given a object"),
    ],
)
def test_inputs_of_which_it_cannot_tell_are_refused(args: Any, said: str) -> None:
    with pytest.raises(eq.MatchError, match=said):
        ask(Remembered("G2D"), *args)


def test_answers_that_depend_on_the_batch_are_refused() -> None:
    def centred(inputs: Any) -> tuple[Tensor, ...]:
        ((x,), _) = inputs
        return (x - x.mean(dim=0),)

    with pytest.raises(eq.MatchError, match="depends on the others of its batch"):
        ask(Remembered("UMT"), torch.arange(8.0).view(4, 2), answer=centred)
