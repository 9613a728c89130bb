"""Modality valuation against loops written straight from the paper, and what public code got wrong."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import equimodal as eq
from equimodal import testing
from equimodal.data import Order
from equimodal.epochs.redrive import narrowed, refuse_stream
from equimodal.functional.valuation import (
    coalitions,
    contributions,
    repetitions,
    resampling_rate,
    shapley_values,
)
from equimodal.methods.data.data_remixing import DataRemixing
from equimodal.methods.data.modality_valuation import ModalityValuation
from equimodal.methods.data.sample_valuation import SampleValuation
from support.worlds import World, batch, weights

SAMPLES = 50  # no multiple of the batch size: the last batch is a part


def sample_level() -> eq.Method:
    return SampleValuation(warm_up=1)


def modality_level() -> eq.Method:
    return ModalityValuation(warm_up=1, part=0.5)


KINDS: list[Callable[[], Any]] = [sample_level, modality_level]


# ---------------------------------------------------------------------- by hand


def shapley_by_hand(modalities: int, value: Callable[[frozenset[int]], int]) -> list[Fraction]:
    """The mean over all orders in which the modalities can join of what each adds."""
    total = [Fraction(0)] * modalities
    orders = list(permutations(range(modalities)))
    for order in orders:
        joined: frozenset[int] = frozenset()
        for m in order:
            total[m] += value(joined | {m}) - value(joined)
            joined |= {m}
    return [each / len(orders) for each in total]


def repetitions_by_hand(phi: Fraction) -> int:
    if phi >= 1:
        return 0
    if phi > Fraction(4, 10):
        return 1
    return 2 if phi > Fraction(-1, 10) else 3


def right_by_hand(model: nn.Module, inputs: list[Tensor], target: int, kept: Any) -> bool:
    """Whether the prediction for one sample is right, from the features of these modalities."""
    features = [encoder(x[None]) for encoder, x in zip(model.encoders.values(), inputs)]  # type: ignore[operator,union-attr] # noqa: B905
    features = [f if m in kept else torch.zeros_like(f) for m, f in enumerate(features)]
    return int(np.argmax(model.head(torch.cat(features, 1)).detach().numpy())) == target  # type: ignore[operator]


def contributions_by_hand(model: nn.Module, inputs: list[Tensor], target: int) -> list[Fraction]:
    count = len(inputs)
    right = {
        frozenset(kept): right_by_hand(model, inputs, target, kept)
        for size in range(1, count + 1)
        for kept in combinations(range(count), size)
    }
    return shapley_by_hand(count, lambda kept: len(kept) if right.get(kept) else 0)


# ---------------------------------------------------------------------- equations


@pytest.mark.parametrize("modalities", [1, 2, 3, 4])
def test_shapley_values_of_random_games(modalities: int) -> None:
    generator = np.random.default_rng(modalities)
    games = generator.normal(size=(2**modalities, 5))
    games[0] = 0
    members = coalitions(modalities).tolist()
    place = {frozenset(np.flatnonzero(row).tolist()): s for s, row in enumerate(members)}
    found = shapley_values(torch.from_numpy(games))
    for game in range(5):
        expected = shapley_by_hand(modalities, lambda kept: Fraction(games[place[kept], game]))  # noqa: B023
        np.testing.assert_allclose(found[:, game], [float(e) for e in expected], rtol=1e-9)
    torch.testing.assert_close(found.sum(0), torch.from_numpy(games[-1]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("modalities", [2, 3])
def test_contributions_of_every_outcome_there_is(modalities: int) -> None:
    subsets = 2**modalities - 1
    outcomes = torch.arange(2**subsets)
    correct = (outcomes >> torch.arange(subsets)[:, None]) & 1 == 1
    found, times = contributions(correct), repetitions(contributions(correct))
    members = [frozenset(np.flatnonzero(row).tolist()) for row in coalitions(modalities)[1:]]
    for outcome in outcomes.tolist():
        right = dict(zip(members, correct[:, outcome].tolist(), strict=True))
        expected = shapley_by_hand(modalities, lambda s: len(s) if right.get(s) else 0)  # noqa: B023
        np.testing.assert_allclose(found[:, outcome], [float(e) for e in expected], rtol=1e-6)
        assert times[:, outcome].tolist() == [repetitions_by_hand(e) for e in expected]


def test_contributions_of_two_are_those_of_the_paper() -> None:
    correct = (torch.arange(8) >> torch.arange(3)[:, None]) & 1 == 1
    assert set(contributions(correct).flatten().tolist()) == {-0.5, 0.0, 0.5, 1.0, 1.5}


def test_a_sample_that_all_get_right_does_not_come_again() -> None:
    """Values of 0 or 1, as in BalanceMM, give 0.5 here, and a copy that nobody needs."""
    for modalities in range(2, 7):
        value = contributions(torch.ones(2**modalities - 1, 1, dtype=torch.bool))
        assert value.tolist() == [[1.0]] * modalities  # to the bit: 1 - 1e-7 would come again
        assert not repetitions(value).any()


def test_a_third_modality_that_is_never_heard_changes_nothing_but_the_share() -> None:
    """The first two keep their order: a modality that changes no prediction has the least."""
    two = (torch.arange(8) >> torch.arange(3)[:, None]) & 1 == 1
    pairs = {frozenset({0}): 0, frozenset({1}): 1, frozenset({0, 1}): 2}
    rows = []
    for members in coalitions(3)[1:].tolist():
        heard = frozenset(m for m in (0, 1) if members[m])
        rows.append(two[pairs[heard]] if heard else torch.zeros(8, dtype=torch.bool))
    first, second = contributions(two), contributions(torch.stack(rows))
    assert torch.equal((first[0] - first[1]).sign(), (second[0] - second[1]).sign())


def test_the_rate_of_two_is_that_of_the_released_code() -> None:
    for a, b in ((1.2, 0.4), (0.4, 1.2), (0.9, 0.9)):
        gaps = 1 - a, 1 - b
        rate = 2 / 3 * abs(gaps[0] - gaps[1]) * 0.8
        expected = [0 if a >= b else rate, 0 if b >= a else rate]
        found = resampling_rate(torch.tensor([a, b], dtype=torch.float64), 0.8)
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert resampling_rate(torch.tensor([2.0, -1.0]), 5.0).tolist() == [0.0, 1.0]  # once each


# ---------------------------------------------------------------------- in the loop


class Reads(Dataset[tuple[Tensor, ...]]):
    """Counts how often each sample is read."""

    def __init__(self, data: tuple[Tensor, ...]) -> None:
        self.data = data
        self.read: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.data[0])

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.read[index] += 1
        return tuple(part[index] for part in self.data)


def loaders(modalities: int = 2, **settings: Any) -> DataLoader[Any]:
    return DataLoader(Reads(batch(SAMPLES, modalities)), 8, **settings)


def epochs(world: World, balancer: eq.Balancer, loader: Any, count: int) -> None:
    for _ in range(count):
        for *inputs, target in balancer.batches(loader):
            balancer.backward(balancer.loss(world.model(*inputs), target))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        balancer.end_epoch()


def start(method: eq.Method, modalities: int = 2, **settings: Any) -> Any:
    world, loader = World(modalities), loaders(modalities, **settings)
    return world, world.balance(method, train_loader=loader), loader


def order_of(balancer: eq.Balancer, epoch: int) -> eq.Order:
    order = balancer.methods.methods[0].order(SAMPLES, epoch)
    assert order is not None
    return order


def copies_of(order: eq.Order, names: tuple[str, ...]) -> Counter[tuple[int, str]]:
    """Which samples come again with which modality alone; every sample is whole once."""
    kept = [[bool(order.keep[name][i]) for name in names] for i in range(len(order.indices))]
    whole = [i for i, flags in zip(order.indices, kept, strict=True) if all(flags)]
    assert sorted(whole) == list(range(SAMPLES))
    alone = [(i, flags) for i, flags in zip(order.indices, kept, strict=True) if not all(flags)]
    assert all(sum(flags) == 1 for _, flags in alone)
    return Counter((i, names[flags.index(True)]) for i, flags in alone)


@pytest.mark.parametrize("modalities", [2, 3])
def test_every_sample_is_valued_and_comes_again_as_by_hand(modalities: int) -> None:
    world, balancer, loader = start(SampleValuation(warm_up=2), modalities)
    epochs(world, balancer, loader, 2)
    method = balancer.methods.methods[0]
    *inputs, target = loader.dataset.data
    expected: Counter[tuple[int, str]] = Counter()
    for i in range(SAMPLES):
        phi = contributions_by_hand(world.model, [x[i] for x in inputs], int(target[i]))
        np.testing.assert_allclose(method.contributions[:, i], [float(p) for p in phi], rtol=1e-6)
        for name, of in zip(balancer.names, phi, strict=True):
            expected[i, name] += repetitions_by_hand(of)
    assert len(set(expected.values())) > 2, "the test must see samples of several kinds"
    assert copies_of(order_of(balancer, 2), balancer.names) == +expected


@pytest.mark.parametrize("modalities", [2, 3])
def test_lagging_modalities_come_again_as_by_hand(modalities: int) -> None:
    world, balancer, loader = start(ModalityValuation(0.8, warm_up=1, part=0.5), modalities)
    before = Counter(loader.dataset.read)
    for *inputs, target in balancer.batches(loader):
        balancer.backward(balancer.loss(world.model(*inputs), target))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    before = Counter(loader.dataset.read)
    balancer.end_epoch()
    read = loader.dataset.read - before  # with replacement: some twice
    assert sum(read.values()) == SAMPLES // 2
    assert max(read.values()) > 1
    *inputs, target = loader.dataset.data
    means = np.zeros(modalities)
    for i, times in read.items():
        phi = contributions_by_hand(world.model, [x[i] for x in inputs], int(target[i]))
        means += times * np.array([float(p) for p in phi]) / (SAMPLES // 2)
    np.testing.assert_allclose(balancer.methods.methods[0].contributions, means, rtol=1e-6)
    again = copies_of(order_of(balancer, 1), balancer.names)
    assert set(again.values()) == {1}, "each sample once at most"
    for name, mean in zip(balancer.names, means, strict=True):
        rate = min(1.0, 2 / 3 * 0.8 * (means.max() - mean))
        assert sum(n for (_, of), n in again.items() if of == name) == round(rate * SAMPLES)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("modalities", [2, 3])
def test_training_is_that_of_a_hand_written_loop(make: Any, modalities: int) -> None:
    """In the order that the method gives: features of left out modalities are zero, that is all."""
    world, balancer, loader = start(make(), modalities)
    epochs(world, balancer, loader, 1)
    twin = copy.deepcopy(world.model)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    optimizer.load_state_dict(copy.deepcopy(world.optimizer.state_dict()))
    order = order_of(balancer, 1)
    assert len(order.indices) > SAMPLES
    epochs(world, balancer, loader, 1)
    *inputs, target = loader.dataset.data
    for first in range(0, len(order.indices), 8):
        rows = list(order.indices[first : first + 8])
        features = [
            encoder(x[rows]) * order.keep[name][first : first + 8][:, None]
            for (name, encoder), x in zip(twin.encoders.items(), inputs, strict=True)
        ]
        F.cross_entropy(twin.head(torch.cat(features, 1)), target[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(weights(world.model), weights(twin), rtol=1e-9, atol=1e-9)


def test_until_it_is_warm_the_loader_is_the_user_s() -> None:
    world, balancer, loader = start(SampleValuation(warm_up=3))
    plain = World()
    other = plain.balance(eq.Joint())
    epochs(world, balancer, loader, 3)
    epochs(plain, other, loaders(), 3)
    assert torch.equal(weights(world.model), weights(plain.model))
    reads = loader.dataset.read
    assert set(reads.values()) == {4}, "three epochs, and one valuation that is put to use"
    assert copies_of(order_of(balancer, 3), balancer.names)


# ------------------------------------------------------------------ what public code got wrong


def test_valuation_is_of_the_model_as_it_is() -> None:
    """BalanceMM fills a cache with the first batch's correctness and never clears it."""
    world, balancer, loader = start(SampleValuation(warm_up=1))
    method = balancer.methods.methods[0]
    for _ in range(3):
        epochs(world, balancer, loader, 1)
        *inputs, target = loader.dataset.data
        for i in range(0, SAMPLES, 7):  # of every batch
            phi = contributions_by_hand(world.model, [x[i] for x in inputs], int(target[i]))
            assert method.contributions[:, i].tolist() == [float(p) for p in phi]


def test_features_are_left_out_and_not_inputs() -> None:
    """The encoders run once on whole inputs; an encoder of zeros has a bias that says something."""
    world, balancer, loader = start(SampleValuation(warm_up=1))
    seen: list[Tensor] = []
    for encoder in world.encoders.values():
        encoder.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    epochs(world, balancer, loader, 1)
    passes = 2 * -(-SAMPLES // 8)  # the epoch, and the valuation
    assert len(seen) == 2 * passes
    seen.clear()
    epochs(world, balancer, loader, 1)
    assert all((rows != 0).any(dim=1).all() for rows in seen)


def test_no_sample_is_missing_where_the_loader_drops_the_last_batch() -> None:
    world, balancer, loader = start(SampleValuation(warm_up=1), drop_last=True)
    epochs(world, balancer, loader, 1)
    method = balancer.methods.methods[0]
    assert method.contributions.shape == (2, SAMPLES)
    *inputs, target = loader.dataset.data
    for i in (SAMPLES - 2, SAMPLES - 1):
        phi = contributions_by_hand(world.model, [x[i] for x in inputs], int(target[i]))
        assert method.contributions[:, i].tolist() == [float(p) for p in phi]


def test_samples_are_known_by_their_place_whatever_the_loader_shuffles() -> None:
    straight, shuffled = (
        start(SampleValuation(warm_up=1), **settings)
        for settings in ({}, {"shuffle": True, "generator": torch.Generator().manual_seed(3)})
    )
    for world, balancer, _ in (straight, shuffled):
        epochs(world, balancer, straight[2], 1)
    first, second = (b.methods.methods[0].contributions for _, b, _ in (straight, shuffled))
    assert torch.equal(first, second)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits


def test_valuation_is_in_evaluation_mode_and_moves_no_statistics() -> None:
    world, loader = World(head=Normalised()), loaders()
    balancer = world.balance(SampleValuation(warm_up=1), train_loader=loader)
    for *inputs, target in balancer.batches(loader):
        balancer.backward(balancer.loss(world.model(*inputs), target))
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    before = copy.deepcopy(world.model.state_dict())
    balancer.end_epoch()
    assert world.model.training
    for name, value in world.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    world.model.eval()
    *inputs, target = loader.dataset.data
    phi = contributions_by_hand(world.model, [x[5] for x in inputs], int(target[5]))
    assert balancer.methods.methods[0].contributions[:, 5].tolist() == [float(p) for p in phi]


# ---------------------------------------------------------------------- edges


def test_ignored_samples_do_not_count_and_do_not_come_again() -> None:
    *inputs, target = batch(SAMPLES)
    target[::5] = -100
    loader = DataLoader(TensorDataset(*inputs, target), 8)
    world = World()
    balancer = world.balance(SampleValuation(warm_up=1), train_loader=loader)
    epochs(world, balancer, loader, 1)
    ignored = target == -100
    found = balancer.methods.methods[0].contributions
    assert found[:, ignored].isnan().all()
    assert found[:, ~ignored].isfinite().all()
    assert not {i for i, _ in copies_of(order_of(balancer, 1), balancer.names)} & set(
        ignored.nonzero().flatten().tolist()
    )


def test_nothing_that_counts_is_no_reason_to_come_again() -> None:
    *inputs, target = batch(SAMPLES)
    loader = DataLoader(TensorDataset(*inputs, torch.full_like(target, -100)), 8)
    world = World()
    method = ModalityValuation(warm_up=1)
    balancer = world.balance(method, train_loader=loader)
    balancer.end_epoch()
    assert method.contributions.isnan().all()
    assert method.order(SAMPLES, 1) is None


def test_the_user_says_what_is_right_where_no_logit_is_the_largest() -> None:
    *inputs, target = batch(SAMPLES, classes=2)
    loader = DataLoader(TensorDataset(*inputs, target.double()), 8)
    world = World(classes=1, settings={"criterion": binary})
    balancer = world.balance(
        SampleValuation(warm_up=1, correct=lambda u, y: (u[:, 0] > 0) == (y > 0.5)),
        train_loader=loader,
    )
    epochs(world, balancer, loader, 2)
    found = set(balancer.methods.methods[0].contributions.flatten().tolist())
    assert found <= {-0.5, 0.0, 0.5, 1.0, 1.5}
    assert len(found) > 1


def binary(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits[:, 0], target)


def test_logits_without_classes_are_refused_at_the_first_step() -> None:
    *inputs, target = batch(8)
    world = World(classes=1, settings={"criterion": lambda u, y: (u[:, 0] - y).square().mean()})
    loader = DataLoader(TensorDataset(*inputs, target), 8)
    balancer = world.balance(SampleValuation(), train_loader=loader)
    with pytest.raises(eq.SetupError, match=r"two or more classes.*found \(B, 1\).*correct="):
        epochs(world, balancer, loader, 1)


def test_an_answer_of_another_shape_is_refused() -> None:
    world, loader = World(), loaders()
    wrong = SampleValuation(warm_up=1, correct=lambda logits, target: logits > 0)
    with pytest.raises(eq.MatchError, match=r"expected bool of shape \(8,\), found .*\(8, 3\)"):
        epochs(world, world.balance(wrong, train_loader=loader), loader, 1)


def test_other_data_than_was_valued_is_refused() -> None:
    for make in KINDS:
        world, balancer, loader = start(make())
        epochs(world, balancer, loader, 1)
        other = DataLoader(TensorDataset(*batch(20)), 8)
        with pytest.raises(eq.SetupError, match=r"50 samples, but .* has 20"):
            next(iter(balancer.batches(other)))


def test_what_is_missing_is_refused_at_once() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([])

    with pytest.raises(eq.SetupError, match="add train_loader=train_loader"):
        World().balance(SampleValuation())
    with pytest.raises(eq.SetupError, match="Stream is a stream"):
        World().balance(SampleValuation(), train_loader=DataLoader(Stream(), 4))
    with pytest.raises(eq.SetupError, match="each wants to decide which samples"):
        World().balance(SampleValuation(), ModalityValuation(), train_loader=loaders())


class Moving(DataLoader[Any]):
    """Does something to every batch, as a loader that puts them on a device."""

    def __iter__(self) -> Any:
        return (tuple(2 * part for part in each) for each in super().__iter__())


class ByClass(BatchSampler):
    """Batches of its own, as samplers that balance classes make them."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(range(8))] * 30)


class Twice(Sampler[int]):
    """As many as there are samples, but not each once."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter([index // 2 for index in range(self.size)])

    def __len__(self) -> int:
        return self.size


class Shuffled(RandomSampler):
    """Another name for what torch does."""


class Weighted(DistributedSampler[Any]):
    """Is told the epoch, and chooses as it likes."""

    def __iter__(self) -> Iterator[int]:
        return iter([0] * len(self))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: DataLoader(d, 8, sampler=SubsetRandomSampler(range(30))), "30 of 50 samples"),
        (lambda d: DataLoader(d, 8, sampler=RandomSampler(d, num_samples=20)), "20 of 50 samples"),
        (
            lambda d: DataLoader(d, batch_sampler=BatchSampler(range(40), 8, drop_last=True)),
            "40 of 50 samples",
        ),
        (
            lambda d: DataLoader(d, 8, sampler=WeightedRandomSampler([1.0] * 50, 50)),
            "WeightedRandomSampler chooses some more often",
        ),
        (lambda d: Moving(d, 8), "Moving has an __iter__ of its own"),
        (
            lambda d: DataLoader(d, 8, sampler=RandomSampler(d, replacement=True, num_samples=500)),
            "draws 500 times from 50 samples",
        ),
        (
            lambda d: DataLoader(d, 8, sampler=RandomSampler(d, replacement=True)),
            "draws with replacement",
        ),
        (
            lambda d: DataLoader(d, batch_sampler=ByClass(RandomSampler(d), 8, drop_last=False)),
            "its batch sampler ByClass has an __iter__ of its own",
        ),
        (lambda d: DataLoader(d, 8, sampler=Twice(50)), "Twice chooses samples by an __iter__"),
        (lambda d: DataLoader(d, 8, sampler=[0] * 50), "a list, names samples more than once"),
        (
            lambda d: DataLoader(d, 8, sampler=Weighted(d, num_replicas=2, rank=0)),
            "Weighted chooses samples by an __iter__ of its own",
        ),
    ],
)
def test_a_loader_that_means_other_samples_or_batches_is_refused(make: Any, said: str) -> None:
    """The samples that a sampler leaves out are held out, maybe: they must not be trained on."""
    for kind in (*KINDS, lambda: DataRemixing(warm_up=1)):
        with pytest.raises(eq.SetupError, match=said):
            World().balance(kind(), train_loader=make(Reads(batch(SAMPLES))))


def test_samplers_that_leave_a_remainder_to_other_ranks_are_not_refused() -> None:
    samples = Reads(batch(SAMPLES))
    for sampler in (
        DistributedSampler(samples, num_replicas=4, rank=1, drop_last=True),
        RandomSampler(samples),
        Shuffled(samples),
        list(range(SAMPLES)),
        Order(samples, rank=1, world=3),
        Order(samples, shuffle=True, rank=2, world=3),
    ):
        refuse_stream(DataLoader(samples, 8, sampler=sampler))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SampleValuation(-1), "SampleValuation(warm_up): expected 0 or more epochs"),
        (lambda: ModalityValuation(-0.5), "(alpha): expected 0 or more, found -0.5"),
        (lambda: ModalityValuation(float("nan")), "(alpha): expected 0 or more, found nan"),
        (lambda: ModalityValuation(part=0), "(part): expected a share above 0"),
        (lambda: ModalityValuation(part=1.5), "up to 1, found 1.5"),
    ],
)
def test_bad_arguments_are_refused(make: Callable[[], eq.Method], said: str) -> None:
    with pytest.raises(eq.SetupError) as caught:
        make()
    assert said in str(caught.value)


# ---------------------------------------------------------------------- with others


@pytest.mark.parametrize("make", KINDS)
def test_the_evidence_of_others_leaves_out_what_is_left_out(make: Any) -> None:
    """A modality that is dropped for a sample would count with what the head says about zeros."""
    world, loader = World(), loaders()
    balancer = world.balance(make(), eq.OGM(0.8), train_loader=loader)
    epochs(world, balancer, loader, 1)
    order = balancer.methods.order(SAMPLES, 1)
    assert order is not None
    *inputs, target = loader.dataset.data
    left_out = 0
    for number, _ in enumerate(balancer.batches(loader)):
        rows = list(order.indices[8 * number : 8 * number + 8])
        balancer.backward(balancer.loss(world.model(*(x[rows] for x in inputs)), target[rows]))
        found = balancer.evidence.reduce(balancer.names, None)[""].counts.tolist()
        kept = [int(order.keep[n][8 * number : 8 * number + 8].sum()) for n in balancer.names]
        assert found == kept
        left_out += 2 * len(rows) - sum(kept)
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()
    assert left_out == len(order.indices) - SAMPLES > 0


def test_what_is_missing_in_the_data_stays_missing() -> None:
    have = {"audio": torch.tensor([True, False, True])}
    kept = {"audio": torch.tensor([True, True, False]), "visual": torch.tensor([True, True, True])}
    masks = narrowed(have, kept)
    assert masks is not None
    assert {name: mask.tolist() for name, mask in masks.items()} == {"audio": [True, False, False]}
    assert have["audio"].tolist() == [True, False, True]
    assert narrowed(None, {"visual": kept["visual"]}) is None


# ---------------------------------------------------------------------- state, ranks, conformance


@pytest.mark.parametrize("make", KINDS)
def test_a_run_that_goes_on_in_another_process_is_the_same_bit_for_bit(
    make: Any, tmp_path: Any
) -> None:
    """Through a file, with nothing but tensors and numbers in it."""
    world, balancer, loader = start(make())
    epochs(world, balancer, loader, 2)
    saved = world.model.state_dict(), world.optimizer.state_dict(), balancer.state_dict()
    torch.save(saved, tmp_path / "state.pt")
    epochs(world, balancer, loader, 2)
    model, optimizer, state = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = World(seed=9)
    again = fresh.balance(make(), train_loader=loader)
    fresh.model.load_state_dict(model)
    fresh.optimizer.load_state_dict(optimizer)
    again.load_state_dict(state)
    epochs(fresh, again, loader, 2)
    assert torch.equal(weights(fresh.model), weights(world.model))


def shares(rank: int, odd: bool) -> tuple[list[int], Tensor]:
    """What each rank is given of an order, and what it holds for a valuation of its own noise."""
    world, loader = World(), loaders()
    group = torch.distributed.group.WORLD  # nothing else says so: the model is not wrapped
    balancer = world.balance(SampleValuation(warm_up=0), train_loader=loader, process_group=group)
    method = balancer.methods.methods[0]
    phi = torch.ones(2, SAMPLES)
    phi[0, :3] = 0.5 if odd else 1.5
    method.set_extra_state({"contributions": phi})
    given = [i for _ in balancer.batches(loader) for i in balancer.batch[0].tolist()]  # type: ignore[index]
    from equimodal.epochs.run import Run

    return given, Run(balancer).shared(torch.tensor([float(rank)]))


def test_ranks_have_equally_many_batches_and_one_valuation() -> None:
    """A rank with a batch more than the other would wait for it for ever."""
    (first, own), (second, theirs) = testing.spawn(shares, True)
    assert len(first) == len(second) == (SAMPLES + 3 + 1) // 2
    counts = Counter(first + second)
    assert set(counts) == set(range(SAMPLES))
    assert sum(counts.values()) == SAMPLES + 3 + 1, "one sample fills up"
    assert own.tolist() == theirs.tolist() == [0.0]
