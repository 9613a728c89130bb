"""Scores that choose themselves, in training: against a truth written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import equimodal as eq
from support.worlds import Net, World, batch, train


class Apart(Net):
    """Gives its head the features one by one."""

    def forward(self, *inputs: Tensor) -> Any:
        return self.head(*[e(x) for e, x in zip(self.encoders.values(), inputs, strict=True)])


def apart(head: nn.Module) -> World:
    world = World(head=head)
    world.model.__class__ = Apart
    return world


class Reversed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.cat([v, a], dim=1))
        return logits


class Normalised(Reversed):
    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        logits: Tensor = self.out(nn.functional.normalize(torch.cat([a * 30, v], dim=1)))
        return logits


class WeightNormed(Reversed):
    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.out)


class Summed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p, self.q = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        logits: Tensor = self.p(a) + self.q(v)
        return logits


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.out = nn.Linear(8, 3)

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        logits: Tensor = self.out(self.gate(a).sigmoid() * self.value(v))
        return logits


class Biased(Gated):
    """What gates is heard through the bias of what it gates, whatever that is at present."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(8, 8)


@torch.no_grad()
def truth(world: World, chosen: str, *given: Tensor) -> float:
    """The ratio of audio by the definition, with the head run by hand."""
    *inputs, target = given
    a, v = (e(x) for e, x in zip(world.encoders.values(), inputs, strict=True))
    zeros = torch.zeros_like(a)
    rest = world.model.head(zeros, zeros) / 2 if chosen == "Split()" else 0
    fill = (lambda z: z.mean(0).expand_as(z)) if "mean" in chosen else torch.zeros_like
    rows = torch.arange(len(target))
    scores = [
        (world.model.head(*pair) - rest).softmax(dim=1)[rows, target].sum()
        for pair in ((a, fill(v)), (fill(a), v))
    ]
    return float(scores[0] / scores[1])


@pytest.mark.parametrize("scale", [1.0, 0.0, 1e-3])
@pytest.mark.parametrize(
    ("make", "chosen"),
    [
        (Reversed, "Split()"), (Summed, "Split()"), (WeightNormed, "Split()"),
        (Normalised, "Ablation(fill='zero')"), (Biased, "Ablation(fill='zero')"),
        (Gated, "Ablation(fill='mean')"),
    ],
)  # fmt: skip
def test_the_ratio_is_that_of_the_definition_from_any_initial_weights(
    make: Callable[[], nn.Module], chosen: str, scale: float
) -> None:
    if make is WeightNormed and scale == 0:
        scale = 1e-6  # a direction of length zero is none
    world = apart(make())
    with torch.no_grad():
        for parameter in world.model.head.parameters():
            parameter.mul_(scale)
    assert wrong(world, chosen, steps=60, micro=1) == []


@pytest.mark.parametrize("make", [Reversed, Summed])
def test_micro_batches_of_one_sample_from_weights_of_zero(make: Callable[[], nn.Module]) -> None:
    world = apart(make())
    for parameter in world.model.head.parameters():
        nn.init.zeros_(parameter)
    assert wrong(world, "Split()", steps=3, micro=24) == []


def wrong(world: World, chosen: str, steps: int, micro: int) -> list[int]:
    """Return the steps whose ratio is not the true one."""
    balancer = world.balance(eq.OGM(0.8), track_every=1)
    found = []
    for step in range(steps):
        with balancer.attached.recorder.pause():
            expected = truth(world, chosen, *batch(seed=step % 7))
        train(balancer, [batch(seed=step % 7)], micro)
        if balancer.metrics()["ratio/audio"] != pytest.approx(expected, rel=1e-9):
            found.append(step)
    assert repr(balancer.scores.chosen) == chosen
    return found


def test_logits_of_an_affine_head_add_up_and_its_gradients_are_those_of_the_layer() -> None:
    world, twin = apart(WeightNormed()), apart(Reversed())
    with torch.no_grad():
        twin.model.head.out.weight.copy_(world.model.head.out.weight)
        twin.model.head.out.bias.copy_(world.model.head.out.bias)
    *inputs, target = batch()
    balancers = [w.balance(eq.OGM(0.8)) for w in (world, twin)]
    steps = [b.attached.step(b.attached.model(*inputs), target, None, None, 0) for b in balancers]
    torch.testing.assert_close(sum(steps[0].unimodal.values()), steps[0].logits)
    for name in steps[0].names:
        torch.testing.assert_close(steps[0].unimodal[name], steps[1].unimodal[name])
    gradients = [
        torch.autograd.grad(step.unimodal["audio"].square().sum(), step.features["audio"])[0]
        for step in steps
    ]
    torch.testing.assert_close(*gradients)


def test_half_a_head_under_autocast() -> None:
    for head, kind in ((nn.Linear(16, 3), eq.Split), (nn.Sequential(nn.Linear(16, 4), nn.ReLU(),
                       nn.Linear(4, 3)), eq.Ablation)):  # fmt: skip
        world = World(head=head, dtype=torch.float32)
        nn.init.zeros_(head.weight if isinstance(head, nn.Linear) else head[2].weight)
        balancer = world.balance(eq.OGM(0.8))
        *inputs, target = batch(dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = balancer.loss(world.model(*inputs), target)
        balancer.backward(loss)
        assert type(balancer.scores.chosen) is kind


class Twice(Apart):
    """Runs its head a second time, for a loss of the user's own."""

    def forward(self, *inputs: Tensor) -> Any:
        first = super().forward(*inputs)
        self.second = self.head(*[torch.zeros(len(x), 8).to(first) for x in inputs])
        return first


def test_a_second_call_of_the_head_decides_nothing() -> None:
    world, plain = apart(Reversed()), apart(Reversed())
    world.model.__class__ = Twice
    for each in (world, plain):
        nn.init.zeros_(each.model.head.out.weight)
    ratios = []
    for each in (world, plain):
        balancer = each.balance(eq.OGM(0.8), track_every=1)
        train(balancer, [batch(seed=seed) for seed in range(3)])
        ratios.append(balancer.metrics()["ratio/audio"])
    assert ratios[0] == ratios[1] != 1


class Fused(nn.Module):
    """Fuses in its own forward: there is no module to name as a head."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.audio, self.visual, self.out = nn.Linear(4, 8), nn.Linear(5, 8), nn.Linear(8, 3)
        self.way = way

    def forward(self, a: Tensor, v: Tensor) -> Tensor:
        a, v = self.audio(a), self.visual(v)
        if self.way == "similarity":
            return a @ v.T
        fused = {"sum": a + v, "product": a * v, "rectified": (a + v).relu()}[self.way]
        logits: Tensor = self.out(fused)
        return logits


def headless(way: str) -> tuple[nn.Module, eq.Balancer]:
    torch.manual_seed(0)
    model = Fused(way).double()
    nn.init.zeros_(model.out.weight)
    encoders = {"audio": model.audio, "visual": model.visual}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, eq.Balancer(eq.OGM(0.8), model, encoders, None, optimizer)


@pytest.mark.parametrize(
    ("way", "chosen"),
    [("sum", "Split()"), ("rectified", "Ablation(fill='zero')"), ("product",
     "Ablation(fill='mean')")],
)  # fmt: skip
def test_a_model_without_a_head_needs_no_scores(way: str, chosen: str) -> None:
    model, balancer = headless(way)
    *inputs, target = batch()
    balancer.backward(balancer.loss(model(*inputs), target))
    balancer.modulate()
    assert repr(balancer.scores.chosen) == chosen


def test_similarities_tell_nothing_of_one_modality_alone_and_are_refused() -> None:
    model, balancer = headless("similarity")
    *inputs, _ = batch()
    with pytest.raises(eq.MatchError, match=r"nothing of audio, visual alone.*give scores="):
        balancer.loss(model(*inputs), torch.arange(24))


def operations(run: Callable[[], object]) -> dict[str, int]:
    with torch.profiler.profile() as profile:
        run()
    return {event.key: event.count for event in profile.key_averages()}


@pytest.mark.parametrize("ablated", [False, True])
def test_nothing_is_asked_after_the_first_step(ablated: bool) -> None:
    world = World(head=nn.Sequential(nn.Linear(16, 3), nn.Tanh()) if ablated else None)
    balancer = world.balance(eq.OGM(0.8))
    train(balancer, [batch()])
    *inputs, target = batch()
    plain = operations(lambda: world.model(*inputs))
    found = operations(lambda: balancer.loss(world.model(*inputs), target))
    assert found["aten::linear"] == plain["aten::linear"] + (2 if ablated else 0)
    assert found.get("aten::baddbmm", 0) == (0 if ablated else 1), "one for all modalities"
    assert found["aten::tanh"] == plain["aten::tanh"] + (2 if ablated else 0)
    assert not {"aten::randn", "aten::normal_", "aten::equal", "aten::isfinite"} & set(found)
