"""Curation of greedy learning against a loop written by hand from the equations of the method."""

from __future__ import annotations

import copy
import gc
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import equimodal as eq
from equimodal import testing
from equimodal.functional.greedy import learning_speed, speed_difference
from equimodal.methods.features.greedy import Greedy
from equimodal.nn import MLP, MMTM, CNN1d
from support.worlds import World, batch, train, weights

Array = NDArray[np.float64]


def host(modalities: int = 2) -> MMTM:
    """Three layers each, and a block after the second and the third."""
    names = testing.NAMES[:modalities]
    branches = {name: MLP(4 + i, (7, 6), 5 + i) for i, name in enumerate(names)}
    return MMTM(branches, testing.CLASSES)


class Hosted:
    """A host, its optimizer and how to balance it."""

    def __init__(self, seed: int = 0, lr: float = 0.5) -> None:
        torch.manual_seed(seed)
        self.model = host().double()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=0.5)

    def balance(self, method: eq.Method, **settings: Any) -> eq.Balancer:
        model = self.model
        return eq.Balancer(
            method, model, model.encoders, model.head, self.optimizer, **{"epochs": 300, **settings}
        )


# ---------------------------------------------------------------------- by hand


class ByHand:
    """The method as a user would write it down, for a host of two branches."""

    def __init__(self, tolerance: float, duration: int, start: int) -> None:
        self.tolerance, self.duration, self.start = tolerance, duration, start
        self.means: dict[tuple[str, str], Array] = {}
        self.steps = 0
        self.sums = {
            (kind, name): 0.0 for kind in ("bypass", "main") for name in ("audio", "visual")
        }
        self.left = 0
        self.caring = ""
        self.history: list[str] = []

    def forward(self, model: MMTM, inputs: list[Tensor]) -> tuple[dict[str, Tensor], Any]:
        maps, seen = dict(zip(("audio", "visual"), inputs, strict=True)), {}
        for stage in range(3):
            maps = {n: model.branches[n].stages[stage](x) for n, x in maps.items()}  # type: ignore[union-attr]
            number = str(stage + 1)
            if number in model.blocks:
                block: Any = model.blocks[number]
                hidden = torch.relu(block.squeeze[0](torch.cat([maps["audio"], maps["visual"]], 1)))
                for name in maps:
                    linear = block.gates[name][0]
                    gate = 1 / (1 + torch.exp(-linear(hidden)))
                    seen[number, name] = gate.detach().numpy()
                    if self.left and self.caring == name:
                        gate = torch.from_numpy(self.means[number, name]).expand_as(gate)
                    maps[name] = maps[name] * gate
        classifiers: Any = model.head.branches.classifiers
        return {name: classifiers[name](x) for name, x in maps.items()}, seen

    def speed(self, model: MMTM, parts: tuple[str, ...]) -> float:
        gradients = sizes = 0.0
        for key, parameter in model.named_parameters():
            if any(part in f".{key}." for part in parts):
                gradients += float((parameter.grad.numpy() ** 2).sum())  # type: ignore[union-attr]
                sizes += float((parameter.detach().numpy() ** 2).sum())
        return gradients / sizes

    def train(self, world: Hosted, batches: list[tuple[Tensor, ...]], epoch: int) -> None:
        for *inputs, target in batches:
            self.history.append(self.caring if self.left else "")
            logits, seen = self.forward(world.model, inputs)
            loss = sum(F.cross_entropy(u, target) for u in logits.values())
            world.optimizer.zero_grad()
            loss.backward()  # type: ignore[union-attr]
            for key, parameter in world.model.named_parameters():
                assert parameter.grad is not None or self.left, key
                if parameter.grad is None:  # a curated gate
                    parameter.grad = torch.zeros_like(parameter)
            for key, gates in seen.items():
                mean, past = gates.mean(axis=0), self.means.get(key, 0.0)
                self.means[key] = (past * self.steps + mean) / (self.steps + 1)
            self.steps += 1
            if self.left:
                self.left -= 1
            else:
                for name in ("audio", "visual"):
                    own = (f".gates.{name}.", ".squeeze.")
                    self.sums["bypass", name] += self.speed(world.model, own)
                    branch = (f".branches.{name}.", f".classifiers.{name}.")
                    self.sums["main", name] += self.speed(world.model, branch)
                rates = [
                    math.log10(self.sums["bypass", n] / self.sums["main", n])
                    for n in ("audio", "visual")
                ]
                d = rates[0] - rates[1]
                if epoch >= self.start and abs(d) > self.tolerance:
                    self.left, self.caring = self.duration, "audio" if d > 0 else "visual"
            world.optimizer.step()


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("tolerance", [0.0, 0.15])
def test_equals_the_hand_written_loop(seed: int, tolerance: float) -> None:
    by_hand, world = Hosted(seed), Hosted(seed)
    hand = ByHand(tolerance, duration=3, start=1)
    balancer = world.balance(Greedy(tolerance, duration=3, start=1))
    for epoch in range(4):
        batches = [batch(13 + i, seed=10 * epoch + i) for i in range(6)]
        hand.train(by_hand, batches, epoch)
        train(balancer, batches)
        balancer.end_epoch()
        assert_same(world.model, by_hand.model)
    assert hand.history[:7] == [""] * 7, "not before the first epoch that may curate"
    assert set(hand.history) > {""}
    method = next(iter(balancer.methods))
    torch.testing.assert_close(
        method.means, torch.from_numpy(np.concatenate(list(hand.means.values()))), rtol=1e-9, atol=0
    )


def test_curations_of_both_modalities_were_compared() -> None:
    """So that a mean of the other modality's gates would be noticed above."""
    curated = set()
    for seed in (0, 1, 2):
        hand, world = ByHand(0.0, 3, 0), Hosted(seed)
        hand.train(world, [batch(13, seed=i) for i in range(30)], 0)
        curated |= set(hand.history)
    assert curated == {"", "audio", "visual"}


# ---------------------------------------------------------------------- the equation


@pytest.mark.parametrize("seed", range(3))
def test_speeds_equal_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(3, 4), (2,), (1, 2, 3)]
    g, w = (
        [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(2)
    )
    squares = [sum(x * x for t in of for x in t.flatten().tolist()) for of in (g, w)]
    assert learning_speed(g, w).item() == pytest.approx(squares[0] / squares[1], rel=1e-12)
    bypass, main = torch.rand(2, 2, generator=generator, dtype=torch.float64)
    (b0, b1), (m0, m1) = bypass.tolist(), main.tolist()
    expected = math.log10(b0 / m0) - math.log10(b1 / m1)
    assert speed_difference(bypass, main).item() == pytest.approx(expected, rel=1e-12)


def test_parameters_that_are_all_zero_have_no_speed() -> None:
    assert learning_speed([torch.ones(2)], [torch.zeros(2)]).item() == 0
    assert speed_difference(torch.zeros(2), torch.zeros(2)).isnan()


def test_half_precision_does_not_overflow() -> None:
    large = torch.full((100,), 250.0, dtype=torch.float16)
    assert learning_speed([large], [torch.ones(100, dtype=torch.float16)]).item() == pytest.approx(
        62500
    )


# ---------------------------------------------------------------------- a curation


def curating(world: Hosted, modality: int, **settings: Any) -> tuple[eq.Balancer, Greedy]:
    method = Greedy(tolerance=1e6, start=0, **settings)
    balancer = world.balance(method)
    train(balancer, [batch(seed=seed) for seed in range(4)])
    method.left.fill_(3)
    method.curated.fill_(modality)
    return balancer, method


@pytest.mark.parametrize("modality", [0, 1])
def test_nothing_crosses_into_the_curated_branch(modality: int) -> None:
    world = Hosted()
    balancer, _ = curating(world, modality)
    name, other = (("audio", "visual"), ("visual", "audio"))[modality]
    *inputs, _ = batch()
    changed = list(inputs)
    changed[1 - modality] = changed[1 - modality] + 1
    first, second = world.model.encode(*inputs), world.model.encode(*changed)
    assert torch.equal(first[name], second[name])
    assert not torch.allclose(first[other], second[other])
    changed = list(inputs)
    changed[modality] = changed[modality] + 1
    assert not torch.allclose(first[other], world.model.encode(*changed)[other])
    balancer.detach()


def test_each_gate_has_the_mean_of_its_own() -> None:
    """In the published code the mean of the second modality is that of the first one's gates."""
    world = Hosted()
    method = Greedy(tolerance=1e6)
    balancer = world.balance(method)
    seen: dict[str, list[Tensor]] = {"audio": [], "visual": []}
    for name, outputs in seen.items():
        gate: Any = world.model.blocks["3"].gates
        gate[name].register_forward_hook(lambda m, a, o, to=outputs: to.append(o.detach()))
    for seed in range(3):
        train(balancer, [batch(seed=seed)])
    method.left.fill_(1)
    for index, (name, outputs) in enumerate(seen.items()):
        method.curated.fill_(index)
        expected = torch.stack([output.mean(0) for output in outputs[:3]]).mean(0)
        world.model(*batch(7)[:-1])
        torch.testing.assert_close(outputs[-1], expected.expand(7, -1), rtol=1e-12, atol=0)
        del outputs[3:], name


def test_evaluation_is_neither_curated_nor_counted() -> None:
    """In the published code every forward counts, those of evaluation too."""
    world = Hosted()
    balancer, method = curating(world, 0)
    *inputs, target = batch(seed=9)
    before = method.means.clone(), method.steps.clone()
    bare = copy.deepcopy(world.model)
    with torch.no_grad():
        assert torch.equal(balancer.predict(*inputs), bare(*inputs))
        balancer.check((*inputs, target))
    world.model.eval()
    assert torch.equal(world.model(*inputs), bare(*inputs))
    world.model.train()
    assert not torch.equal(world.model(*inputs), bare(*inputs))
    train(balancer, [batch(seed=10)])
    assert method.steps == before[1] + 1
    assert not torch.equal(method.means, before[0])


def test_it_ends_after_its_steps() -> None:
    world = Hosted()
    method = Greedy(tolerance=0.0, duration=4, start=0)
    balancer = world.balance(method)
    lengths = []
    for seed in range(11):
        train(balancer, [batch(seed=seed)])
        lengths.append(int(method.left))
    assert lengths == [4, 3, 2, 1, 0, 4, 3, 2, 1, 0, 4]


def test_a_skipped_step_leaves_no_mark() -> None:
    world = Hosted()
    method = Greedy(tolerance=0.0, start=0)
    balancer = world.balance(method)
    train(balancer, [batch()])
    state = copy.deepcopy(method.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    *inputs, target = batch(seed=3)
    loss = scaler.scale(balancer.loss(world.model(*inputs), target))
    balancer.backward(loss)
    first = next(world.model.parameters())
    assert first.grad is not None
    first.grad.fill_(math.inf)
    balancer.modulate(scaler)
    scaler.step(world.optimizer)
    scaler.update()
    assert str(method.state_dict()) == str(state)


def test_micro_batches_equal_the_large_batch() -> None:
    batches = [batch(24, seed=seed) for seed in range(8)]
    large, small = Hosted(), Hosted()
    one, other = Greedy(0.0, 2, 0), Greedy(0.0, 2, 0)
    train(large.balance(one), batches)
    train(small.balance(other), batches, micro=3)
    assert_same(small.model, large.model)
    torch.testing.assert_close(one.means, other.means, rtol=1e-9, atol=0)


def test_recomputed_gates_answer_as_they_did_and_are_counted_once() -> None:
    world, plain = Hosted(), Hosted()
    (balancer, method), (twin, twin_method) = curating(world, 1), curating(plain, 1)
    block: Any = world.model.blocks["3"]
    block.forward = lambda maps, run=block.forward: checkpoint(run, maps, use_reentrant=False)
    for seed in range(5):  # 3 of them curated
        train(balancer, [batch(seed=seed)])
        train(twin, [batch(seed=seed)])
    assert_same(world.model, plain.model)
    torch.testing.assert_close(method.means, twin_method.means, rtol=1e-12, atol=0)


def test_missing_samples_do_not_count_in_their_branch() -> None:
    world = Hosted()
    balancer = world.balance(Greedy())
    *inputs, target = batch(10)
    present = torch.arange(10) < 6
    loss = balancer.loss(world.model(*inputs), target, present={"audio": present})
    logits = world.model.head.unimodal_logits(world.model.encode(*inputs))
    expected = 0.6 * F.cross_entropy(logits["audio"][:6], target[:6])
    expected = expected + F.cross_entropy(logits["visual"], target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_maps_with_positions_and_an_evaluation_in_between() -> None:
    torch.manual_seed(0)
    model = MMTM({"audio": CNN1d(2, 8), "visual": CNN1d(3, 8)}, classes=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(
        Greedy(0.0, 2, 0), model, dict(model.encoders.items()), model.head, optimizer
    )
    target = torch.randint(4, (9,))
    for _ in range(4):
        loss = balancer.loss(model(torch.randn(9, 2, 40), torch.randn(9, 3, 50)), target)
        balancer.backward(loss)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            model(torch.randn(5, 2, 40), torch.randn(5, 3, 50))
    assert all(p.isfinite().all() for p in model.parameters())


# ---------------------------------------------------------------------- leaving, refused


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_hooks_go_at_detach_and_with_the_balancer() -> None:
    world = Hosted()
    balancer = world.balance(Greedy())
    assert hooks(world.model) > 0
    balancer.detach()
    assert hooks(world.model) == 0
    balancer = world.balance(Greedy())
    del balancer
    gc.collect()
    assert hooks(world.model) == 0


def test_copies_of_the_model_are_not_curated() -> None:
    world = Hosted()
    _, method = curating(world, 0)
    bare = copy.deepcopy(world.model)
    means = method.means.clone()
    *inputs, _ = batch()
    method.left.fill_(0)
    expected = world.model(*inputs)
    method.left.fill_(1)
    assert torch.equal(bare(*inputs), expected)
    assert torch.equal(method.means, means)


def test_other_models_are_refused_and_left_as_they_were() -> None:
    world = World()
    with pytest.raises(eq.SetupError, match=r"expected a model with MMTM gates.* Found SmallModel"):
        world.balance(Greedy())
    assert hooks(world.model) == 0
    assert not world.optimizer._optimizer_step_pre_hooks


def test_a_host_without_branch_logits_is_refused() -> None:
    torch.manual_seed(0)
    model = host()

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, audio: Tensor, visual: Tensor) -> Tensor:
            return self.layer(audio) + self.layer(visual[:, :5])  # type: ignore[no-any-return]

    model.head = Mean()  # type: ignore[assignment]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(eq.SetupError, match=r"unimodal_logits\(features\)"):
        eq.Balancer(Greedy(start=0), model, dict(model.encoders.items()), model.head, optimizer)
    assert hooks(model) == 0


def test_three_modalities_are_refused() -> None:
    model = host(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(eq.SetupError, match="Greedy is defined for 2 modalities, found 3"):
        eq.Balancer(Greedy(start=0), model, dict(model.encoders.items()), model.head, optimizer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -1.0}, r"Greedy\(tolerance\): expected a number 0 or more, found -1"),
        ({"tolerance": math.nan}, "found nan"),
        ({"duration": 0}, r"Greedy\(duration\): expected 1 step or more, found 0"),
        ({"start": -1}, r"Greedy\(start\): expected an epoch, 0 or more, found -1"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.SetupError, match=message):
        Greedy(**settings)


# ---------------------------------------------------------------------- the contract


class Watching(eq.Method):
    """Puts a hook on the head, and may refuse the model."""

    name = "watching"

    def attach(self, model: nn.Module, modalities: Any) -> Any:
        return [model.head.register_forward_hook(lambda *_: None)]


class Refusing(eq.Method):
    name = "zz-refusing"  # after the other: what it has attached must go

    def attach(self, model: nn.Module, modalities: Any) -> Any:
        raise eq.SetupError("not this model")


def test_if_one_method_refuses_the_model_no_hook_is_left() -> None:
    world = World()
    with pytest.raises(eq.SetupError, match="not this model"):
        world.balance(Watching(), Refusing())
    assert hooks(world.model) == 0
    found = []
    for method in (eq.Joint(), Watching()):
        balancer = world.balance(method)
        found.append(hooks(world.model))
        balancer.detach()
    assert (found[1] - found[0], hooks(world.model)) == (1, 0)
