"""BSS against a plain loop, and the orders that it makes."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal.functional.bss import agreement, difficulty, easy_part, weighted_order
from equimodal.methods.data.bss import BSS, SEQUENCE
from equimodal.methods.data.sequences import Curriculum, WeightedSequence
from equimodal.noise import mix
from support.slow import softmax
from support.worlds import World, batch, weights

SIZE, SAMPLES = 8, 30  # the last batch is not full


def loader(modalities: int = 2, seed: int = 1) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*batch(SAMPLES, modalities, seed=seed)), SIZE)


def attach(method: eq.Method, modalities: int = 2, seed: int = 0) -> tuple[World, eq.Balancer]:
    world = World(modalities, seed=seed)
    balancer = world.balance(method, train_loader=loader(modalities, seed + 1))
    widths: dict[str, tuple[int, ...]] = dict.fromkeys(balancer.names, (8,))
    balancer.make_modules(eq.Shapes(widths, (3,), torch.device("cpu"), torch.float64))
    return world, balancer


def run(world: World, balancer: eq.Balancer, data: Any, epochs: int) -> list[list[int]]:
    """Train, and return which samples each epoch had, in order; nothing where it was left alone."""
    seen = []
    for _ in range(epochs):
        epoch: list[int] = []
        for *inputs, target in balancer.batches(data):
            epoch += [] if balancer.batch is None else balancer.batch[0].tolist()
            balancer.backward(balancer.loss(world.model(*inputs), target))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        balancer.end_epoch()
        seen.append(epoch)
    return seen


# ---------------------------------------------------------------------- equations


def cosine(p: Any, q: Any) -> float:
    product = sum(x * y for x, y in zip(p, q, strict=True))
    return float(product) / math.hypot(*p) / math.hypot(*q)


def scaled(values: list[float]) -> list[float]:
    return [(v - min(values)) / (max(values) - min(values)) for v in values]


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_agreement_and_difficulty_equal_the_loop(modalities: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(modalities, 9, 4, dtype=torch.float64, generator=generator)
    losses = torch.rand(9, dtype=torch.float64, generator=generator)
    alike = []
    for i in range(9):
        p = [softmax(u[i].numpy()) for u in logits]
        pairs = [cosine(a, b) for a, b in itertools.combinations(p, 2)]
        alike.append(sum(pairs) / len(pairs))
    found = agreement(logits)
    torch.testing.assert_close(found, torch.tensor(alike, dtype=torch.float64), rtol=1e-9, atol=0)
    hard = [a - b for a, b in zip(scaled(losses.tolist()), scaled(alike), strict=True)]
    torch.testing.assert_close(
        difficulty(losses, found), torch.tensor(hard, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


def test_agreement_is_of_the_modalities_that_a_sample_has() -> None:
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    present = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]]).bool()
    found = agreement(logits, present)
    torch.testing.assert_close(found[0], agreement(logits)[0])
    torch.testing.assert_close(found[1], agreement(logits[[0, 2]])[1])
    assert found[2].isnan()
    torch.testing.assert_close(found[3], agreement(logits[:2])[3])


def test_what_is_unknown_or_the_same_everywhere_stays_out_of_it() -> None:
    """The released code divides by the range, which is then 0."""
    same = torch.full((3,), 0.7)
    assert difficulty(same, same).tolist() == [0, 0, 0]
    losses = torch.tensor([0.0, math.nan, 1.0, 0.8])
    assert difficulty(losses, torch.ones(4)).tolist() == pytest.approx([0, 0.6, 1, 0.8])
    nothing = torch.full((3,), math.nan)
    assert difficulty(nothing, nothing).tolist() == [0, 0, 0]


def test_the_curriculum_reaches_as_many_samples_as_the_released_code_says() -> None:
    for epoch in (0, 1, 7, 38, 39, 80):
        share = math.sqrt((1 - 0.1**2) / 40 * (epoch + 1) + 0.1**2)
        assert easy_part(epoch, 0.1, 40) == pytest.approx(min(1, share), rel=1e-12)


def test_an_order_is_drawn_one_sample_after_the_other_by_weight() -> None:
    given = [0.5, 1.5, 3.0]
    expected = {}
    for order in itertools.permutations(range(3)):
        left, probability = sum(given), 1.0
        for at in order:
            probability *= given[at] / left
            left -= given[at]
        expected[order] = probability
    generator = torch.Generator().manual_seed(0)
    tries = 4000
    found = Counter(
        tuple(weighted_order(torch.tensor(given), generator).tolist()) for _ in range(tries)
    )
    for order, probability in expected.items():
        noise = math.sqrt(probability * (1 - probability) / tries)
        assert abs(found[order] / tries - probability) < 4 * noise


# ---------------------------------------------------------------------- a plain loop


class ByHand:
    """The same training with the classifiers in the user's optimizer, and lists of samples."""

    def __init__(self, world: World, method: BSS, modalities: int, seed: int) -> None:
        self.model, self.optimizer = world.model, world.optimizer
        self.encoders = list(world.encoders.values())
        self.layers: Any = copy.deepcopy(method.readouts.layers)
        self.optimizer.add_param_group({"params": list(self.layers.parameters())})
        self.weights = method.joint, method.unimodal
        *self.inputs, self.target = batch(SAMPLES, modalities, seed=seed)

    def logits(self, rows: list[int]) -> tuple[Tensor, list[Tensor]]:
        z = [e(x[rows]) for e, x in zip(self.encoders, self.inputs, strict=True)]
        alone = [layer(feature) for layer, feature in zip(self.layers, z, strict=True)]
        return self.model.head(torch.cat(z, dim=1)), alone

    def loss(self, rows: list[int]) -> Tensor:
        joint, alone = self.logits(rows)
        total = self.weights[0] * F.cross_entropy(joint, self.target[rows])
        for each in alone:
            total = total + self.weights[1] * F.cross_entropy(each, self.target[rows])
        return total

    def epoch(self, order: list[int]) -> None:
        for start in range(0, len(order), SIZE):
            self.optimizer.zero_grad()
            self.loss(order[start : start + SIZE]).backward()
            self.optimizer.step()

    @torch.no_grad()
    def difficulty(self) -> list[float]:
        losses, alike = [], []
        for i in range(SAMPLES):
            losses.append(self.loss([i]).item())
            p = [softmax(u[0].numpy()) for u in self.logits([i])[1]]
            pairs = [cosine(a, b) for a, b in itertools.combinations(p, 2)]
            alike.append(sum(pairs) / len(pairs))
        return [a - b for a, b in zip(scaled(losses), scaled(alike), strict=True)]


def weighted(hard: list[float], epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mix(0, SEQUENCE, epoch))
    times = torch.empty(SAMPLES, dtype=torch.float64).exponential_(generator=generator).tolist()
    return sorted(range(SAMPLES), key=lambda i: times[i] / (1 - hard[i] + 0.01))


def easiest(hard: list[float], epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mix(0, SEQUENCE, epoch))
    count = int(SAMPLES * min(1.0, math.sqrt((1 - 0.2**2) / 6 * (epoch + 1) + 0.2**2)))
    part = sorted(range(SAMPLES), key=lambda i: hard[i])[:count]
    return [part[i] for i in torch.randperm(count, generator=generator).tolist()]


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["weighted", "curriculum"])
def test_training_equals_a_plain_loop(kind: str, modalities: int, seed: int) -> None:
    """An epoch of warm-up and two that are sequenced, momentum and weight decay included."""
    sequence = WeightedSequence() if kind == "weighted" else Curriculum(0.2, 6)
    method = BSS(sequence, joint=0.3, unimodal=0.9)
    world, balancer = attach(method, modalities, seed)
    twin = ByHand(World(modalities, seed=seed), method, modalities, seed + 1)
    seen = run(world, balancer, loader(modalities, seed + 1), 3)
    twin.epoch(list(range(SAMPLES)))
    hard = twin.difficulty()
    assert seen[0] == []
    for epoch in (1, 2):
        order = weighted(hard, epoch) if kind == "weighted" else easiest(hard, epoch)
        assert seen[epoch] == order
        twin.epoch(order)
        if kind == "weighted":  # the curriculum goes on with what it found first
            hard = twin.difficulty()
    assert method.difficulty is not None
    torch.testing.assert_close(
        method.difficulty, torch.tensor(hard, dtype=torch.float64), rtol=0, atol=1e-9
    )
    for found, expected in ((world.model, twin.model), (method.readouts, twin.layers)):
        torch.testing.assert_close(weights(found), weights(expected), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("vote", [0.0, 1.0, 0.4])
def test_the_model_has_a_vote_beside_the_classifiers(vote: float) -> None:
    method = BSS(vote=vote)
    world, balancer = attach(method, 3)
    *inputs, _ = batch(12, 3)
    with torch.no_grad():
        found = balancer.predict(*inputs)
        expected = vote * world.model(*inputs)
        encoders = world.encoders.values()
        for layer, encoder, x in zip(method.readouts.layers, encoders, inputs, strict=True):
            expected = expected + layer(encoder(x))
    torch.testing.assert_close(found, expected)


def test_ogm_reads_the_head_that_is_trained_beside_the_classifiers() -> None:
    world = World()
    balancer = world.balance(BSS(), eq.OGM(0.5), train_loader=loader())
    before = weights(world.model.head)
    _, second = run(world, balancer, loader(), 2)
    assert sorted(second) == list(range(SAMPLES))
    assert not torch.equal(weights(world.model.head), before)


def test_easy_samples_come_first_on_average() -> None:
    """The released code for Twitter has the opposite sign: hard ones do."""
    hard = torch.linspace(-1, 1, 400)
    order = WeightedSequence()(hard, 1, torch.Generator().manual_seed(0))
    assert hard[order[:100]].mean() < -0.2
    assert hard[order[-100:]].mean() > 0.2
    assert sorted(order.tolist()) == list(range(400))


def test_the_curriculum_grows_until_it_has_all() -> None:
    sequence, hard = Curriculum(0.0, 4), torch.arange(100).flip(0) / 100
    generator = torch.Generator().manual_seed(0)
    sizes = []
    for epoch in range(5):
        part = sequence(hard, epoch, generator)
        sizes.append(len(part))
        assert sorted(part.tolist()) == list(range(100 - len(part), 100))
    assert sizes == [50, 70, 86, 100, 100]
    assert len(Curriculum(0.0, 1000)(hard[:3], 0, generator)) == 1, "an epoch of no sample"


# ---------------------------------------------------------------------- edges


def test_a_sample_is_judged_by_what_it_has() -> None:
    """The mean of its modalities stands for one that it lacks; without a label no loss is known."""
    method = BSS(joint=0.3, unimodal=0.9)
    world, balancer = attach(method, 3)
    *inputs, target = batch(4, 3)
    target[3] = -100
    present = {"visual": torch.tensor([True, False, False, True])}
    present["text"] = torch.tensor([True, True, False, True])
    step = balancer.attached.step(world.model(*inputs), target, present, None, 0)
    with torch.no_grad():
        losses, alike = method._judge(step)
        z = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
        u = [layer(of) for layer, of in zip(method.readouts.layers, z, strict=True)]
        alone = [F.cross_entropy(each, target, reduction="none") for each in u]
        joint = 0.3 * F.cross_entropy(world.model(*inputs), target, reduction="none")
    for i, here in enumerate([[0, 1, 2], [0, 2], [0]]):
        mean = sum(float(alone[m][i]) for m in here) / len(here)
        assert losses[i].item() == pytest.approx(float(joint[i]) + 3 * 0.9 * mean, rel=1e-9)
    assert losses[3].isnan()
    p = [each[1].softmax(0) for each in u]
    assert alike[1].item() == pytest.approx(cosine(p[0], p[2]), rel=1e-9)
    assert alike.isnan().tolist() == [False, False, True, False]


def test_an_epoch_with_missing_labels_and_modalities_is_sequenced() -> None:
    *inputs, target = batch(SAMPLES)
    target[5:9] = -100
    data = DataLoader(TensorDataset(*inputs, target, torch.arange(SAMPLES) % 3 > 0), SIZE)

    def forward(model: nn.Module, row: Any) -> Any:
        *x, y, here = row
        return model(*x), y, {"visual": here}

    world, method = World(), BSS()
    balancer = world.balance(method, train_loader=data, forward=forward)
    for _ in range(2):
        for row in balancer.batches(data):
            logits, y, present = forward(world.model, row)
            balancer.backward(balancer.loss(logits, y, present=present))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        balancer.end_epoch()
    assert method.difficulty is not None
    assert method.difficulty.isfinite().all()
    assert weights(world.model).isfinite().all()


def test_other_data_than_was_judged_is_refused() -> None:
    world, balancer = attach(BSS())
    run(world, balancer, loader(), 1)
    other = DataLoader(TensorDataset(*batch(12)), SIZE)
    with pytest.raises(eq.SetupError, match=r"30 samples.*12"):
        next(iter(balancer.batches(other)))


def test_training_data_is_asked_for() -> None:
    with pytest.raises(eq.SetupError, match="train_loader=train_loader"):
        World().balance(BSS())


def test_targets_that_are_no_classes_are_refused() -> None:
    world = World()
    balancer = world.balance(BSS(), train_loader=loader(), criterion=nn.functional.mse_loss)
    *inputs, _ = next(iter(balancer.batches(loader())))
    with pytest.raises(eq.MatchError, match="one class per sample"):
        balancer.loss(world.model(*inputs), torch.rand(SIZE, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BSS(joint=-1), ["BSS(joint)", "-1"]),
        (lambda: BSS(unimodal=math.nan), ["BSS(unimodal)", "nan"]),
        (lambda: BSS(vote=math.inf), ["BSS(vote)", "inf"]),
        (lambda: BSS(warm_up=0), ["BSS(warm_up)", "1 or more", "0"]),
        (lambda: WeightedSequence(0), ["floor", "above 0"]),
        (lambda: Curriculum(start=1.5), ["start", "1.5"]),
        (lambda: Curriculum(epochs=0), ["epochs", "1 or more", "0"]),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], Any], words: list[str]) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
