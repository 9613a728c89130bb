"""What methods do between epochs leaves the run as it was: random states, gradients, the user's."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import equimodal as eq
from equimodal import data
from equimodal.epochs.run import Run
from support.settings import METHODS
from support.worlds import Net, World, batch, train, weights


class Perturbed(nn.Module):
    """BatchNorm and dropout around a linear head: a pass in training mode would show.

    It draws from NumPy too, as Wav2Vec2 draws its masks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)
        self.linear = nn.Linear(16, 3)

    def forward(self, features: Tensor) -> Tensor:
        np.random.random()  # noqa: NPY002
        dropped = nn.functional.dropout(self.norm(features), 0.2, self.training)
        logits: Tensor = self.linear(dropped)
        return logits


def shuffled(seed: int) -> DataLoader[Any]:
    """Its sampler draws from a generator of its own, and the loader from another."""
    samples = TensorDataset(*batch(30, seed=seed))
    sampler = RandomSampler(samples, generator=torch.Generator().manual_seed(seed))
    return DataLoader(samples, 8, sampler=sampler, generator=torch.Generator().manual_seed(9))


def states(*loaders: DataLoader[Any]) -> list[Any]:
    generators: list[Any] = [g for of in loaders for g in (of.generator, of.sampler.generator)]  # type: ignore[attr-defined]
    drawn = [torch.get_rng_state(), *(generator.get_state() for generator in generators)]
    _, keys, *place = np.random.get_state()  # noqa: NPY002
    return [*(state.tolist() for state in drawn), random.getstate(), keys.tolist(), place]


PASSING: dict[str, Callable[[], eq.Method]] = {
    **{name: make for name, make in METHODS.items() if make().overrides("end_epoch")},
    "pmr, part": lambda: eq.PMR(share=0.5),
}


@pytest.mark.filterwarnings("ignore:a method decides which samples")
@pytest.mark.parametrize("name", PASSING)
def test_the_end_of_an_epoch_draws_nothing_and_touches_no_statistics(name: str) -> None:
    """Else a method would change the order and the dropout of all epochs after it."""
    world = World(head=Perturbed())
    loaders = shuffled(1), shuffled(2)
    balancer = world.balance(PASSING[name](), train_loader=loaders[0], val_loader=loaders[1])
    train(balancer, [batch(12)])
    world.model.encoders["visual"].eval()  # an encoder whose BatchNorm a user has frozen
    modes = [module.training for module in world.model.modules()]
    buffers = copy.deepcopy(dict(world.model.named_buffers()))
    before = states(*loaders)
    for _ in range(3):
        balancer.end_epoch()
    assert states(*loaders) == before
    assert [module.training for module in world.model.modules()] == modes
    for key, value in world.model.named_buffers():
        assert torch.equal(value, buffers[key]), key
    assert all(parameter.grad is None for parameter in world.model.parameters())


def test_a_pass_that_is_left_early_leaves_nothing_either() -> None:
    world, loader = World(head=Perturbed()), shuffled(1)
    balancer = world.balance(eq.Joint())
    before = states(loader)
    for _ in Run(balancer).steps(loader):
        torch.rand(3)
        break
    assert states(loader) == before
    assert world.model.training


def test_a_pass_does_not_use_up_an_epoch_of_the_data() -> None:
    """The loaders of `equimodal.data` go on to the next epoch with every pass."""
    splits = data.load("mfeat", modalities=("pix", "mor"))
    loader = splits.train.loader(500, seed=3, shuffle=True)
    balancer = World().balance(eq.Joint())
    balancer.forward = lambda model, given: (model(*batch(8)[:2]), None)
    expected = [given[-1].tolist() for given in splits.train.loader(500, seed=3, shuffle=True)]
    for _ in Run(balancer).steps(loader):
        pass
    assert [given[-1].tolist() for given in loader] == expected


# ---------------------------------------------------------------------- copies that are trained


def loaders(**settings: Any) -> dict[str, Any]:
    pairs = {"train_loader": batch(24, seed=1), "val_loader": batch(16, seed=2)}
    return {n: DataLoader(TensorDataset(*of), 8, **settings) for n, of in pairs.items()}


def test_a_copy_is_trained_by_all_optimizers_of_the_model() -> None:
    """A step each of several optimizers is the step of one that holds all parameters."""
    found = []
    for many in (False, True):
        world = World()
        parts: list[Any] = [world.model.head, *world.encoders.values()]
        optimizers: Any = [torch.optim.SGD(p.parameters(), lr=0.1, momentum=0.9) for p in parts]
        if not many:
            optimizers = torch.optim.SGD(world.model.parameters(), lr=0.1, momentum=0.9)
        balancer = eq.Balancer(
            eq.Joint(), world.model, world.encoders, world.model.head, optimizers
        )
        start = weights(world.model)
        fork = Run(balancer).fork(eq.Joint())
        fork.train(loaders()["train_loader"], epochs=2)
        assert torch.equal(weights(world.model), start)
        found.append(weights(fork.model))
    assert torch.equal(*found)
    assert not torch.equal(found[0], start)


class Tempered(nn.Module):
    """A criterion that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits * self.scale, target)


def test_a_criterion_that_learns_is_copied_with_the_model() -> None:
    """Its parameters are in the user's optimizer, and in no module of the model."""
    world, criterion = World(), Tempered()
    optimizer = torch.optim.Adam([*world.model.parameters(), criterion.scale], lr=0.1)
    balancer = eq.Balancer(
        eq.Joint(), world.model, world.encoders, world.model.head, optimizer, criterion=criterion
    )
    train(balancer, [batch(12)])
    before = criterion.scale.item(), weights(world.model)
    fork = Run(balancer).fork(eq.Joint())
    fork.train(loaders()["train_loader"], epochs=1)
    assert criterion.scale.grad is None
    assert criterion.scale.item() == before[0]
    assert torch.equal(weights(world.model), before[1])
    learned: Any = fork.balancer.criterion.loss
    assert learned.scale.item() != before[0]


def test_training_a_copy_draws_nothing() -> None:
    world, loader = World(head=Perturbed()), shuffled(1)
    balancer = world.balance(eq.Joint())
    before = states(loader)
    Run(balancer).fork(eq.Joint()).train(loader, epochs=2)
    assert states(loader) == before
    assert isinstance(world.model, Net)


# ---------------------------------------------------------------------- missing modalities


def says(model: nn.Module, given: Any) -> tuple[Any, ...]:
    """The user's `forward`, for batches that hold which samples have audio."""
    *inputs, target, here = given
    return model(*inputs), target, {"audio": here}


def partly(size: int, seed: int, noise: float) -> DataLoader[Any]:
    audio, *rest = batch(size, seed=seed)
    here = torch.arange(size) % 3 > 0
    return DataLoader(TensorDataset(torch.where(here[:, None], audio, noise), *rest, here), 8)


@pytest.mark.filterwarnings("ignore:a method decides which samples")
@pytest.mark.parametrize(
    "name",
    ["data-remixing", "diagnosing-relearning", "dynamic-mslr", "lfm", "mses", "pmr"],
)
def test_what_stands_in_for_a_missing_modality_says_nothing(name: str) -> None:
    found = []
    for noise in (0.0, 7.0):
        world = World()
        given = {"train_loader": partly(31, 1, noise), "val_loader": partly(20, 2, noise)}
        balancer = world.balance(METHODS[name](), forward=says, **given)
        train(balancer, [batch(12)])
        for _ in range(2):
            balancer.end_epoch()
        found.append((weights(world.model), str(balancer.state_dict()["methods"])))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_samples_are_valued_for_the_modalities_that_they_have() -> None:
    world, loader = World(), partly(31, 1, 0.0)
    method = eq.SampleValuation(warm_up=1)
    world.balance(method, forward=says, train_loader=loader).end_epoch()
    audio, visual = method.contributions
    assert torch.equal(audio.isnan(), torch.arange(31) % 3 == 0)
    assert visual.isfinite().all()


def test_losses_of_blended_heads_are_of_the_samples_that_have_the_modality() -> None:
    world, loader = World(), partly(31, 1, 7.0)
    method = eq.GradientBlending()
    given = {"train_loader": loader, "val_loader": loader}
    balancer = world.balance(method, forward=says, **given)
    train(balancer, [batch(12)])
    run = Run(balancer)
    found = method._losses(run, run.steps(loader), method.readouts, ("audio", "visual"))
    audio, visual, target, here = loader.dataset.tensors  # type: ignore[attr-defined]
    for value, name, x, counted in (
        (found[0], "audio", audio, here),
        (found[1], "visual", visual, torch.ones_like(here)),
    ):
        features = {n: world.encoders[name](x[counted]) for n in ("audio", "visual")}
        with torch.no_grad():
            alone = method.readouts(features)[name]
        expected = nn.functional.cross_entropy(alone, target[counted])
        torch.testing.assert_close(value, expected.detach(), rtol=1e-9, atol=0)


def test_a_copy_is_trained_without_what_is_missing() -> None:
    found = []
    for noise in (0.0, 7.0):
        world = World()
        balancer = world.balance(eq.Joint(), forward=says)
        fork = Run(balancer).fork(eq.Unimodal("audio"))
        fork.train(partly(31, 1, noise), epochs=1)
        found.append(weights(fork.model))
    assert torch.equal(*found)
    assert world.balance(eq.Joint(), forward=says).check(next(iter(partly(9, 1, 0.0))))
