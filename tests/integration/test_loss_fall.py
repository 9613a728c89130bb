"""Evidence from how far each loss has fallen since the first step, against a loop by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import equimodal as eq
from equimodal.testing import spawn
from support import slow

ALPHA = 0.4
NAMES = ("audio", "video", "touch")
SCALES = {"audio": 50.0, "video": 1.0, "touch": 0.02}
Batch = dict[str, Tensor]


class Model(nn.Module):
    """Each modality restored through a trunk that all share."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.into = nn.ModuleDict({name: nn.Linear(3, 4) for name in names})
        self.trunk = nn.Linear(4, 4)
        self.out = nn.ModuleDict({name: nn.Linear(4, 3) for name in names})

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        mixed = sum(self.into[name](each) for name, each in batch.items())
        inner = self.trunk(mixed).tanh()
        return {name: self.out[name](inner) for name in batch}


def batch(names: Sequence[str], seed: int, size: int = 12) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(size, 3, generator=generator, dtype=torch.float64) for n in names}


def cut(whole: Batch, micro: int) -> list[Batch]:
    return [{name: each[i::micro] for name, each in whole.items()} for i in range(micro)]


class World:
    def __init__(self, names: Sequence[str], ranks: bool = False) -> None:
        torch.manual_seed(0)
        self.names, self.model = tuple(names), Model(names).double()
        self.wrapped = DistributedDataParallel(self.model) if ranks else self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.encoders = {n: [self.model.into[n], self.model.out[n]] for n in names}
        self.first: dict[str, list[float]] = {}

    def balance(
        self, method: eq.Method | None = None, track_every: int = 1, steps: int = 1
    ) -> eq.Balancer:
        return eq.Balancer(
            method or eq.OGM(ALPHA),
            self.wrapped,
            self.encoders,
            optimizer=self.optimizer,
            scores=eq.LossFall(steps),
            track_every=track_every,
        )

    def losses(self, part: Batch) -> dict[str, Tensor]:
        out = self.wrapped(part)
        return {n: SCALES[n] * (out[n] - part[n]).square().mean(1) for n in self.names}

    def train(
        self, balancer: eq.Balancer, parts: list[Batch], lacking: str = ""
    ) -> dict[str, float]:
        for part in parts:
            losses = {n: each for n, each in self.losses(part).items() if n != lacking}
            balancer.backward(balancer.loss(losses=losses) / len(parts))
        balancer.modulate()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return balancer.metrics()

    def by_hand(self, parts: list[Batch], lacking: str = "", steps: int = 1) -> dict[str, float]:
        there = [name for name in self.names if name != lacking]
        means, total = dict.fromkeys(there, 0.0), torch.zeros((), dtype=torch.float64)
        for part in parts:
            for name, each in self.losses(part).items():
                if name != lacking:
                    means[name] += each.mean().item() / len(parts)
                    total = total + each.mean() / len(parts)
        torch.autograd.backward(total)
        falls = []
        for name in there:
            start = self.first.setdefault(name, [])
            if len(start) < steps:
                start.append(means[name])
            falls.append(sum(start) / len(start) / means[name])
        ratios = slow.ratios(falls) if len(falls) > 1 else [math.nan]
        found: dict[str, float] = {}
        for name, fall, ratio in zip(there, falls, ratios, strict=True):
            k = 1.0 if math.isnan(ratio) else slow.thresholded(ratio, ALPHA)
            found |= {f"evidence/{name}": fall, f"coefficient/{name}": k}
            slow.scale_matrices(self.encoders[name], k)
        if lacking:
            for module in self.encoders[lacking]:
                module.zero_grad()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return found


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


@pytest.mark.parametrize("names", [NAMES[:2], NAMES], ids=["two", "three"])
@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("late", [False, True])
def test_equals_the_loop_by_hand(names: Sequence[str], micro: int, late: bool) -> None:
    """At the first step nobody is ahead; a modality that comes late starts when it comes."""
    world, hand = World(names), World(names)
    balancer = world.balance()
    throttled = set()
    for seed in range(6):
        lacking = "video" if late and seed == 0 else ""
        parts = cut(batch(names, seed), micro)
        found, expected = world.train(balancer, parts, lacking), hand.by_hand(parts, lacking)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9), (seed, name)
            throttled |= {value < 1} if name.startswith("coefficient") else set()
            assert seed or value == 1
    assert throttled == {True, False}
    torch.testing.assert_close(weights(world.model), weights(hand.model), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("steps", [2, 3])
def test_the_start_is_the_mean_over_steps_that_had_the_modality(steps: int, micro: int) -> None:
    """One that comes late takes as many from there on; a run is resumed within the start."""
    world, hand = World(NAMES), World(NAMES)
    balancer = world.balance(steps=steps)
    for seed in range(6):
        if seed == 2:
            state = copy.deepcopy(balancer.state_dict())
            balancer.detach()
            balancer = world.balance(steps=steps)
            balancer.load_state_dict(state)
        lacking = "video" if seed in (0, 2) else ""
        parts = cut(batch(NAMES, seed), micro)
        found, expected = world.train(balancer, parts, lacking), hand.by_hand(parts, lacking, steps)
        for name, value in expected.items():
            assert found[name] == pytest.approx(value, rel=1e-9), (seed, name)
    assert {len(start) for start in hand.first.values()} == {steps}
    torch.testing.assert_close(weights(world.model), weights(hand.model), rtol=1e-9, atol=1e-12)


def test_a_start_of_no_step_is_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"LossFall\(steps\): expected 1 or more .* found 0"):
        eq.LossFall(0)


def on_ranks(rank: int) -> tuple[Tensor, list[dict[str, float]]]:
    world = World(NAMES, ranks=True)
    balancer = world.balance()
    steps = range(3)
    found = [world.train(balancer, [cut(batch(NAMES, step), 2)[rank]]) for step in steps]
    return weights(world.model), found


def test_two_ranks_equal_two_micro_batches() -> None:
    first, second = spawn(on_ranks)
    assert torch.equal(first[0], second[0])
    hand = World(NAMES)
    for step in range(3):
        for name, value in hand.by_hand(cut(batch(NAMES, step), 2)).items():
            assert first[1][step][name] == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(first[0], weights(hand.model), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("half", [False, True], ids=["after a step", "between micro-batches"])
def test_a_run_is_resumed(half: bool) -> None:
    world, resumed = World(NAMES), World(NAMES)
    balancer = world.balance()
    for seed in range(2):
        world.train(balancer, cut(batch(NAMES, seed), 1))
    if half:
        balancer.backward(balancer.loss(losses=world.losses(batch(NAMES, 7))))
    again = resumed.balance()
    resumed.model.load_state_dict(world.model.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(world.optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(balancer.state_dict()))
    pairs = zip(world.model.parameters(), resumed.model.parameters(), strict=True)
    for theirs, ours in pairs:
        ours.grad = None if theirs.grad is None else theirs.grad.clone()
    for one, of in ((world, balancer), (resumed, again)):
        one.train(of, cut(batch(NAMES, 3), 1))
    assert balancer.metrics()["evidence/audio"] == again.metrics()["evidence/audio"] != 1
    assert torch.equal(weights(world.model), weights(resumed.model))


def test_a_step_that_is_dropped_is_no_start() -> None:
    world, hand = World(NAMES), World(NAMES)
    balancer = world.balance()
    balancer.backward(balancer.loss(losses=world.losses(batch(NAMES, 9))))
    balancer.modulate()
    world.optimizer.zero_grad()  # and no step
    for seed in range(2):
        found = world.train(balancer, cut(batch(NAMES, seed), 1))
        for name, value in hand.by_hand(cut(batch(NAMES, seed), 1)).items():
            assert found[name] == pytest.approx(value, rel=1e-9)


def test_steps_without_scores_leave_the_start_as_it_is() -> None:
    """Joint training needs none, so that they are taken where they are tracked, and only there."""
    world = World(NAMES)
    balancer = world.balance(eq.Joint(), track_every=2)
    means = []
    for seed in range(3):
        parts = cut(batch(NAMES, seed), 1)
        means.append({n: each.mean().item() for n, each in world.losses(parts[0]).items()})
        found = world.train(balancer, parts)
    for name in NAMES:
        fall = means[0][name] / means[2][name]
        assert found[f"evidence/{name}"] == pytest.approx(fall, rel=1e-9)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_from_losses_not_above_zero_nothing_follows(value: float) -> None:
    world = World(NAMES)
    balancer = world.balance()
    world.train(balancer, cut(batch(NAMES, 0), 1))
    losses = world.losses(batch(NAMES, 1))
    losses["audio"] = losses["audio"] * 0 + value
    balancer.backward(balancer.loss(losses=losses))
    with pytest.warns(eq.BalanceWarning, match=r"loss of audio .*not above 0.*are 1"):
        balancer.modulate()
    assert all(balancer.metrics()[f"coefficient/{name}"] == 1 for name in NAMES)


def test_logits_are_refused() -> None:
    step: object = None
    with pytest.raises(eq.MatchError, match=r"scores=eq\.LossFall\(\) takes evidence from losses"):
        eq.LossFall().logits(step)  # type: ignore[arg-type]
