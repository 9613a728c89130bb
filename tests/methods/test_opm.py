"""OPM, alone and together with OGM, against a loop written by hand from the paper's equations."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.functional.opm import drop_probability, drop_scale
from equimodal.methods.features import opm as module
from equimodal.methods.features.opm import OPM
from support import slow
from support.worlds import World, batch, train, weights

# ---------------------------------------------------------------------- by hand


@dataclass
class ByHand:
    """OPM as a user would write it down: one sample and one modality at a time."""

    base: float = 0.5
    strength: float = 0.5
    execution: float = 1.0
    coefficient: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        self.samples = 0
        self.history: list[list[float]] = []
        self.dropped = 0

    def probability(self, ratio: float) -> float:
        if ratio <= 1:
            return 0.0
        return min(1.0, self.base * (1 + self.strength * math.tanh(ratio - 1)))

    def numbers(self, size: int, modalities: int) -> list[list[float]]:
        rows = []
        for sample in range(self.samples, self.samples + size):
            block, place = divmod(sample, 64)
            seeded = torch.Generator().manual_seed(slow.splitmix(slow.splitmix(0, 1), 0, block))
            rows.append(torch.rand(64, modalities, generator=seeded)[place].tolist())
        return rows

    def train(self, world: World, batches: Sequence[tuple[Tensor, ...]]) -> None:
        head = world.model.head
        for *inputs, target in batches:
            features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
            weight, bias = head.weight.detach().numpy(), head.bias.detach().numpy()
            scores, start = [], 0
            for feature in features:
                width = feature.shape[1]
                unimodal = feature.detach().numpy() @ weight[:, start : start + width].T
                scores.append(slow.score(unimodal + bias / len(features), target.tolist()))
                start += width
            ratios = slow.ratios(scores)
            executed = slow.splitmix(0, 2, self.samples) / 2**32 < self.execution
            q = [self.probability(ratio) if executed else 0.0 for ratio in ratios]
            self.history.append(q)
            widths = [feature.shape[1] for feature in features]
            theta = sum(d * each for d, each in zip(widths, q, strict=True)) / sum(widths)
            rows = []
            drawn = self.numbers(len(target), len(features))
            for i in range(len(target)):
                parts = []
                for feature, each, number in zip(features, q, drawn[i], strict=True):
                    keep = 1.0 if number >= each else 0.0
                    self.dropped += keep == 0
                    parts.append(feature[i] * (keep / (1 - theta)))
                rows.append(torch.cat(parts))
            self.samples += len(target)
            loss = F.cross_entropy(head(torch.stack(rows)), target)
            world.optimizer.zero_grad()
            loss.backward()
            if self.coefficient is not None:
                for ratio, encoder in zip(ratios, world.encoders.values(), strict=True):
                    for parameter in encoder.parameters():
                        if parameter.ndim >= 2:
                            parameter.grad = parameter.grad * self.coefficient(ratio)
            world.optimizer.step()


def assert_same(world: World, by_hand: World) -> None:
    torch.testing.assert_close(weights(world.model), weights(by_hand.model), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("execution", [1.0, 0.6])
def test_equals_the_hand_written_loop(modalities: int, execution: float) -> None:
    batches = [batch(20 + seed, modalities, seed=seed) for seed in range(8)]
    by_hand, world = World(modalities), World(modalities)
    hand = ByHand(base=0.4, strength=0.7, execution=execution)
    hand.train(by_hand, batches)
    train(world.balance(OPM(0.4, 0.7, execution, warm_up=0)), batches)
    assert_same(world, by_hand)
    assert hand.dropped > 20
    plain = [sum(q) == 0 for q in hand.history]
    assert any(plain) == (execution < 1)


@pytest.mark.parametrize("modalities", [2, 3])
def test_ogm_and_opm_together_are_the_joint_strategy_of_the_paper(modalities: int) -> None:
    """Both go by one evidence: features before they are dropped, the head before it is trained."""
    batches = [batch(24, modalities, seed=seed) for seed in range(8)]
    by_hand, world = World(modalities), World(modalities)
    hand = ByHand(coefficient=functools.partial(slow.continuous, alpha=0.8), execution=0.7)
    hand.train(by_hand, batches)
    balancer = world.balance(
        eq.OGM(0.8, coefficient=eq.Continuous()), OPM(execution=0.7, warm_up=0), track_every=1
    )
    train(balancer, batches)
    assert_same(world, by_hand)
    for only in (eq.OGM(0.8, coefficient=eq.Continuous()), OPM(execution=0.7, warm_up=0)):
        other = World(modalities)
        train(other.balance(only), batches)
        assert not torch.allclose(weights(other.model), weights(world.model), atol=1e-4)


def test_both_begin_after_the_warm_up() -> None:
    """The paper's schedule: both plain in the first epochs, then both act."""
    batches = [batch(seed=seed) for seed in range(3)]
    world, plain = World(), World()
    together = world.balance(eq.OGM(0.8, window=(2, 80)), OPM(warm_up=2, last=80))
    joint = plain.balance(eq.Joint())
    for epoch in range(4):
        train(together, batches)
        train(joint, batches)
        assert torch.equal(weights(world.model), weights(plain.model)) == (epoch < 2)
        together.end_epoch()
        joint.end_epoch()


@pytest.mark.parametrize("epoch", range(12))
def test_when_it_acts(epoch: int) -> None:
    method = OPM()
    World().balance(method, epochs=100)  # the length of the released run
    assert method.acts(epoch) == (epoch >= 6)
    assert OPM(warm_up=3, last=9).acts(epoch) == (3 <= epoch <= 9)


# ---------------------------------------------------------------------- the equation


@pytest.mark.parametrize("seed", range(3))
def test_probability_and_scale_equal_the_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ratios = 3 * torch.rand(5, generator=generator, dtype=torch.float64)
    ratios[1] = 0.7  # one of them is always behind
    hand = ByHand(base=0.8, strength=1.5)  # beyond 1 for large ratios
    expected = [hand.probability(ratio) for ratio in ratios.tolist()]
    found = drop_probability(ratios, 0.8, 1.5)
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    widths = [3, 1, 4, 1, 5]
    theta = sum(d * q for d, q in zip(widths, expected, strict=True)) / 14
    assert drop_scale(found, widths).item() == pytest.approx(1 / (1 - theta), rel=1e-12)


def test_an_undefined_ratio_drops_nobody() -> None:
    assert drop_probability(torch.tensor([math.nan, math.inf]), 0.5, 0.5).tolist() == [0.0, 0.75]


def ratios_seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    seen: list[Tensor] = []

    def watched(ratio: Tensor, base: float, strength: float) -> Tensor:
        seen.append(ratio)
        return drop_probability(ratio, base, strength)

    monkeypatch.setattr(module, "drop_probability", watched)
    return seen


def test_a_ratio_is_of_scores_and_not_of_another_ratio() -> None:
    """In BalanceMM the second modality is compared with the ratio of the first: 0.41 and 0.60."""
    log_scores = torch.tensor([6.49, 6.46], dtype=torch.float64).log()
    ratios = eq.functional.discrepancy_ratio(log_scores)
    expected = 0.4 * (1 + 0.5 * math.tanh(6.49 / 6.46 - 1))
    assert drop_probability(ratios, 0.4, 0.5).tolist() == pytest.approx([expected, 0.0], rel=1e-12)
    torch.testing.assert_close(log_scores.exp(), torch.tensor([6.49, 6.46], dtype=torch.float64))


def test_its_ratios_are_the_evidence_of_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the temperature of the scores, as OGM's are."""
    seen = ratios_seen(monkeypatch)
    world = World()
    scores = eq.Split(temperature=2.5)
    balancer = world.balance(OPM(execution=1, warm_up=0), scores=scores, track_every=1)
    *inputs, target = batch()
    unimodal = balancer.unimodal_logits(*inputs)
    audio, visual = (
        sum(math.exp(-F.cross_entropy(u[i], target[i]).item() / 2.5) for i in range(24))
        for u in unimodal.values()
    )
    train(balancer, [(*inputs, target)])
    assert seen[0].tolist() == pytest.approx([audio / visual, visual / audio], rel=1e-12)
    assert balancer.metrics()["ratio/audio"] == pytest.approx(audio / visual, rel=1e-12)


def test_evidence_has_no_gradient() -> None:
    """The head is detached in the scores: only the loss of what is left is backpropagated."""
    world = World()
    balancer = world.balance(OPM(base=0, strength=0, execution=1, warm_up=0))
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target))
    plain = World()
    F.cross_entropy(plain.model(*inputs), target).backward()
    for ours, theirs in zip(world.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)


def test_m_3_with_one_modality_absent_is_m_2(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = ratios_seen(monkeypatch)
    *inputs, target = batch(24, 3)
    world = World(3)
    balancer = world.balance(OPM(execution=1, warm_up=0))
    nobody = torch.zeros(24, dtype=torch.bool)
    balancer.loss(world.model(*inputs), target, present={"text": nobody})
    two = seen[0][:2]
    assert seen[0][2].isnan()
    assert (two[0] * two[1]).item() == pytest.approx(1, rel=1e-12)


# ---------------------------------------------------------------------- who is left


def test_samples_with_nothing_left_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 40
    *inputs, target = batch(size)
    present = torch.arange(size) % 4 != 0  # of the modality that is behind
    seen = ratios_seen(monkeypatch)
    first = World()
    first.balance(OPM(execution=1, warm_up=0)).loss(first.model(*inputs), target)
    weak = "audio" if seen[0][0] < 1 else "visual"
    world = World()
    balancer = world.balance(OPM(base=0.9, strength=0, execution=1, warm_up=0))
    loss = balancer.loss(world.model(*inputs), target, present={weak: present})
    assert (seen[-1][balancer.names.index(weak)] < 1).item()
    balancer.backward(loss)

    by_hand = World()
    hand = ByHand(base=0.9, strength=0)
    features = [e(x) for e, x in zip(by_hand.encoders.values(), inputs, strict=True)]
    q = [0.0 if name == weak else 0.9 for name in balancer.names]
    theta = sum(8 * each for each in q) / 16
    rows, labels = [], []
    for i, numbers in enumerate(hand.numbers(size, 2)):
        keep = [number >= each for number, each in zip(numbers, q, strict=True)]
        has = [bool(present[i]) or name != weak for name in balancer.names]
        if any(k and h for k, h in zip(keep, has, strict=True)):
            parts = [f[i] * (k / (1 - theta)) for f, k in zip(features, keep, strict=True)]
            rows.append(torch.cat(parts))
            labels.append(target[i])
    assert 0 < len(rows) < size - 5
    F.cross_entropy(by_hand.model.head(torch.stack(rows)), torch.stack(labels)).backward()
    for ours, theirs in zip(world.model.parameters(), by_hand.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


def test_a_batch_of_nobody_has_a_loss_of_zero() -> None:
    *inputs, target = batch(5)
    nobody = torch.zeros(5, dtype=torch.bool)
    world = World()
    balancer = world.balance(OPM(execution=1, warm_up=0))
    loss = balancer.loss(world.model(*inputs), target, present={"audio": nobody, "visual": nobody})
    assert loss.item() == 0
    balancer.backward(loss)
    assert all(p.grad is None or not p.grad.any() for p in world.model.parameters())


def test_what_another_method_has_dropped_stays_dropped() -> None:
    """The head runs again on the features as they entered it the first time."""

    class WithoutAudio(eq.Method):
        name = "without-audio"

        def gate(self, features: Any) -> Any:
            return {"audio": torch.zeros(len(features["audio"]))}

    world = World()
    balancer = world.balance(WithoutAudio(), OPM(execution=1, warm_up=0))
    *inputs, target = batch()
    balancer.backward(balancer.loss(world.model(*inputs), target))
    for parameter in world.model.encoders["audio"].parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


# ---------------------------------------------------------------------- criteria and heads


def test_a_criterion_that_sums_is_summed() -> None:
    world = World()
    summing = nn.CrossEntropyLoss(reduction="sum")
    balancer = world.balance(OPM(base=0, execution=1, warm_up=0), criterion=summing)
    *inputs, target = batch()
    logits = world.model(*inputs)
    loss = balancer.loss(logits, target)
    assert loss.item() == pytest.approx(summing(logits, target).item(), rel=1e-12)


def test_a_head_that_is_not_linear() -> None:
    head = nn.Sequential(nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3))
    world = World(head=head)
    train(world.balance(OPM(execution=1, warm_up=0)), [batch(seed=seed) for seed in range(5)])
    assert weights(world.model).isfinite().all()


def test_it_replaces_the_joint_loss() -> None:
    with pytest.raises(eq.SetupError, match="MultiLoss and OPM cannot be combined"):
        World().balance(eq.MultiLoss(), OPM())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": 1.1}, r"OPM\(base\): expected a number from 0 to 1, found 1.1"),
        ({"base": math.nan}, "found nan"),
        ({"strength": -1}, r"OPM\(strength\): expected a number 0 or more, found -1"),
        ({"strength": math.inf}, "found inf"),
        ({"execution": 2}, r"OPM\(execution\): expected a number from 0 to 1, found 2"),
        ({"warm_up": -1}, r"OPM\(warm_up\): expected a number of epochs, 0 or more, found -1"),
        ({"warm_up": 4, "last": 3}, r"OPM\(last\): expected 4 or more, .* found 3"),
    ],
)
def test_bad_arguments(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(eq.SetupError, match=message):
        OPM(**settings)
