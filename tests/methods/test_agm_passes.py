"""AGM with as few passes and runs of the head as its numbers allow, and where more are needed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import equimodal as eq
from equimodal.functional.agm import circle_weights, shapley_responses
from equimodal.functional.valuation import weighted_sums
from equimodal.methods.gradient import agm
from equimodal.methods.gradient.agm import AGM
from equimodal.methods.gradient.apart import source
from equimodal.scores.generic import Structure
from equimodal.scores.rows import Head
from support.worlds import Silencing, World, batch, train, weights

NAMES = [f"m{index}" for index in range(8)]


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let responses be told apart by a backward pass each, as of any head, one run at a time."""
    monkeypatch.setattr(agm, "apart", lambda *_: False)
    monkeypatch.setattr(Head, "takes_rows", lambda *_: False)


def trained(make: Callable[[], World], micro: int = 1) -> Tensor:
    world = make()
    batches = [batch(12, world.modalities, seed=seed) for seed in range(4)]
    train(world.balance(AGM(alpha=3.0)), batches, micro)
    return weights(world.model)


def tanh(modalities: int) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(8 * modalities, 6), nn.Tanh(), nn.Linear(6, 3))


class Sum(nn.Module):
    """Affine, and no single layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 3) for _ in range(2))

    def forward(self, joined: Tensor) -> Tensor:
        first, second = (layer(z) for layer, z in zip(self.layers, joined.split(8, 1), strict=True))
        return first + second


WORLDS: dict[str, Callable[[], World]] = {
    "linear": World,
    "linear, three": lambda: World(3),
    "linear without a bias": lambda: World(head=seeded(nn.Linear, 16, 3, bias=False)),
    "frozen weight": lambda: World(head=frozen_weight()),
    "sum": lambda: World(head=seeded(Sum)),
    "tanh": lambda: World(3, head=tanh(3)),
    "dropout": lambda: World(head=nn.Sequential(nn.Dropout(0.0), seeded(nn.Linear, 16, 3))),
}


def seeded(kind: Callable[..., nn.Module], *args: Any, **settings: Any) -> nn.Module:
    torch.manual_seed(5)
    return kind(*args, **settings)


def frozen_weight() -> nn.Module:
    layer = seeded(nn.Linear, 16, 3)
    layer.get_parameter("weight").requires_grad_(False)
    return layer


@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("make", WORLDS.values(), ids=WORLDS)
def test_the_shortest_way_and_the_longest_agree(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], World], micro: int
) -> None:
    short = trained(make, micro)
    one_by_one(monkeypatch)
    monkeypatch.setattr(Head, "structure", lambda *_: Structure(False))
    torch.testing.assert_close(short, trained(make, micro), rtol=1e-9, atol=1e-12)


def flops(step: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def test_a_linear_head_needs_the_one_pass_of_the_loop() -> None:
    world, plain = World(), World()
    *inputs, target = batch(12)
    balancer = world.balance(AGM())

    def balanced() -> None:
        train(balancer, [(*inputs, target)])

    def alone() -> None:
        nn.functional.cross_entropy(plain.model(*inputs), target).backward()

    balanced()
    of_parts = 2 * 12 * 16 * 3
    assert flops(balanced) == flops(alone) + of_parts


def test_terms_of_others_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the gradient of an encoder, that of the joint loss is scaled, and no other."""

    def run() -> Tensor:
        world = World()
        *inputs, target = batch(12)
        balancer = world.balance(AGM(alpha=3.0))
        for _ in range(3):
            loss = balancer.loss(world.model(*inputs), target)
            decay = sum(p.square().sum() for p in world.model.parameters())
            balancer.backward(2 * loss + 0.3 * decay)
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        return weights(world.model)

    short = run()
    one_by_one(monkeypatch)
    torch.testing.assert_close(short, run(), rtol=1e-9, atol=1e-12)


class Entangled(nn.Module):
    """The second encoder is given the first feature, or both are given a common trunk."""

    def __init__(self, trunk: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(4, 4) if trunk else None
        self.audio, self.visual = nn.Linear(4, 8), nn.Linear(4 if trunk else 8, 8)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.trunk is None else self.trunk(x).tanh()
        audio = self.audio(x)
        visual = self.visual(audio.tanh() if self.trunk is None else x)
        logits: Tensor = self.head(torch.cat([audio, visual], dim=1))
        return logits


@pytest.mark.parametrize("trunk", [True, False])
def test_encoders_that_meet_before_the_head_are_told_apart_by_passes(
    monkeypatch: pytest.MonkeyPatch, trunk: bool
) -> None:
    def run() -> Tensor:
        model = Entangled(trunk).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        encoders = {"audio": model.audio, "visual": model.visual}
        features = {"audio": slice(0, 8), "visual": slice(8, 16)}
        balancer = eq.Balancer(
            AGM(alpha=3.0), model, encoders, model.head, optimizer, features=features
        )
        for seed in range(3):
            x, _, target = batch(12, seed=seed)
            balancer.backward(balancer.loss(model(x), target))
            balancer.modulate()
            optimizer.step()
            optimizer.zero_grad()
        return weights(model)

    short = run()
    one_by_one(monkeypatch)
    assert torch.equal(short, run())


def test_samples_that_gates_empty_count_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> Tensor:
        world = World()
        balancer = world.balance(AGM(alpha=3.0), Silencing())
        *inputs, target = batch(12)
        present = {"visual": torch.arange(12) % 3 > 0}
        balancer.backward(balancer.loss(world.model(*inputs), target, present=present))
        balancer.modulate()
        return torch.cat([p.grad.flatten() for p in world.model.parameters() if p.grad is not None])

    short = run()
    one_by_one(monkeypatch)
    torch.testing.assert_close(short, run(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (0, 2)])
def test_a_feature_that_was_cut_out_of_a_join_is_its_own(frozen: tuple[int, ...]) -> None:
    pieces = [nn.Linear(4, width)(torch.randn(2, 4)) for width in (3, 5, 7)]
    joined = torch.cat([z.detach() if i in frozen else z for i, z in enumerate(pieces)], dim=1)
    places = ((0, 3), (3, 5), (8, 7))
    found = [source((joined.narrow(1, *place).grad_fn, 0))[0] for place in places]
    expected = [None if i in frozen else z.grad_fn for i, z in enumerate(pieces)]
    if len(frozen) < 2:
        assert found == expected
    else:  # their lengths are not known, and so nothing is
        assert all(node is not None and node.name() == "SliceBackward0" for node in found)
    assert source((joined.narrow(1, 1, 4).grad_fn, 0))[0].name() == "SliceBackward0"


# ---------------------------------------------------------------------- rows


class Centred(nn.Module):
    """Rows see each other: each is compared with the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, joined: Tensor) -> Tensor:
        logits: Tensor = self.layer((joined - joined.mean(dim=0)).tanh())
        return logits


ROWS: dict[str, tuple[Callable[[], nn.Module], bool, bool]] = {  # in evaluation, in training
    "tanh": (lambda: tanh(2), True, True),
    "rows that see each other": (Centred, False, False),
    "BatchNorm": (lambda: nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3)), True, False),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Linear(16, 3)), True, False),
}


def step_of(world: World, size: int = 6) -> eq.Step:
    balancer = world.balance(eq.Joint())
    *inputs, target = batch(size, world.modalities)
    return balancer.attached.step(world.model(*inputs), target, {}, None, 0)


@pytest.mark.parametrize("name", ROWS)
def test_rows_run_together_where_each_is_by_itself(name: str) -> None:
    make, evaluating, training = ROWS[name]
    world = World(head=make())
    step, asked = step_of(world), Head()
    before = {key: value.clone() for key, value in world.model.state_dict().items()}
    assert asked.takes_rows(step) == training
    world.model.head.eval()
    assert asked.takes_rows(step) == evaluating
    assert all(torch.equal(value, before[key]) for key, value in world.model.state_dict().items())


def test_one_sample_tells_nothing_of_rows() -> None:
    assert not Head().takes_rows(step_of(World(head=tanh(2)), size=1))


def test_rows_that_see_each_other_run_set_by_set(monkeypatch: pytest.MonkeyPatch) -> None:
    short = trained(lambda: World(head=seeded(Centred)))
    one_by_one(monkeypatch)
    assert torch.equal(short, trained(lambda: World(head=seeded(Centred))))


class Masked(nn.Module):
    """The head is given an input beside the features, with an entry for each sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio, self.visual, self.head = nn.Linear(4, 8), nn.Linear(5, 8), Weighed()

    def forward(self, audio: Tensor, visual: Tensor) -> Any:
        return self.head(self.audio(audio), self.visual(visual), audio[:, :1].detach().sigmoid())


class Weighed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, audio: Tensor, visual: Tensor, weight: Tensor) -> Tensor:
        logits: Tensor = self.layer((weight * audio + (1 - weight) * visual).tanh())
        return logits


def test_inputs_beside_the_features_keep_their_rows() -> None:
    model = Masked().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = {"audio": model.audio, "visual": model.visual}
    features = {"audio": 0, "visual": 1}
    balancer = eq.Balancer(AGM(), model, encoders, model.head, optimizer, features=features)
    *inputs, target = batch(6)
    step = balancer.attached.step(model(*inputs), target, {}, None, 0)
    assert not Head().takes_rows(step)
    balancer.backward(balancer.loss(model(*inputs), target))
    balancer.modulate()


# ---------------------------------------------------------------------- many modalities


@pytest.mark.parametrize("modalities", [3, 4])
def test_circles_give_shapley_values_on_average(modalities: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2**modalities - 1, 5, generator=generator, dtype=torch.float64)
    found = []
    for circle in itertools.permutations(range(modalities)):
        arcs, weighed = circle_weights(circle)
        answers = torch.stack([*(logits[arc - 1] for arc in arcs), logits[-1]])
        found.append(weighted_sums(weighed, answers))
        torch.testing.assert_close(found[-1].sum(dim=0), logits[-1], rtol=1e-12, atol=1e-12)
    mean = torch.stack(found).mean(dim=0)
    torch.testing.assert_close(mean, shapley_responses(logits), rtol=1e-12, atol=1e-12)


class Many(nn.Module):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(4, 8) for name in names})
        self.head = tanh(len(names))
        for name, encoder in self.encoders.items():
            torch.manual_seed(NAMES.index(name))
            nn.init.normal_(encoder.weight)
            nn.init.zeros_(encoder.bias)
        with torch.no_grad():  # the same function whatever the order
            first = self.head[0].weight
            columns = torch.stack([first[:, :8] * (1 + NAMES.index(name)) for name in names], 1)
            first.copy_(columns.flatten(1))

    def forward(self, inputs: Mapping[str, Tensor]) -> Any:
        return self.head(torch.cat([e(inputs[name]) for name, e in self.encoders.items()], dim=1))


def of_many(names: list[str], micro: int, **settings: Any) -> tuple[dict[str, Tensor], eq.Balancer]:
    model = Many(names).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    encoders = dict(model.encoders.items())
    balancer = eq.Balancer(AGM(), model, encoders, model.head, optimizer, **settings)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        drawn = {n: torch.randn(8, 4, generator=generator, dtype=torch.float64) for n in NAMES}
        target = torch.randint(3, (8,), generator=generator)
        for rows in torch.arange(8).chunk(micro):
            logits = model({name: value[rows] for name, value in drawn.items()})
            balancer.backward(balancer.loss(logits, target[rows]) / micro)
        balancer.modulate()
        optimizer.step()
        optimizer.zero_grad()
    return {name: weights(encoder) for name, encoder in model.encoders.items()}, balancer


def test_above_six_modalities_one_circle_serves_a_whole_step() -> None:
    """Micro-batches share it; neither their number nor the order of the encoders changes a step."""
    whole, balancer = of_many(NAMES, 1, micro_batches=1)
    for names, micro in ((NAMES, 2), (NAMES[::-1], 1)):
        other, _ = of_many(names, micro)
        for name in NAMES:
            torch.testing.assert_close(whole[name], other[name], rtol=1e-9, atol=1e-12)
    state = balancer.state_dict()
    assert state["methods"]["agm"]["_extra_state"] == {"taken": 3}
    del state["methods"]["agm"]["_extra_state"]  # as an earlier version saved it
    balancer.load_state_dict(state)


def test_a_circle_costs_fewer_rows_than_all_coalitions() -> None:
    arcs, _ = circle_weights(range(8))
    assert len(set(arcs)) == 8 * 7 < 2**8 - 2
    assert math.isclose(circle_weights([2, 0, 1])[1].sum().item(), 1.0)
