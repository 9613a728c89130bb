"""Data Remixing against a plain loop, and the batches that hold one modality each."""

from __future__ import annotations

import copy
import math
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import equimodal as eq
from equimodal import testing
from equimodal.functional.data_remixing import least_separable, separability
from equimodal.methods.data.data_remixing import SHUFFLE, DataRemixing
from equimodal.noise import mix
from support.worlds import World, batch, weights

SIZE, SAMPLES = 8, 30  # the last batch of each part is not full


def loader(modalities: int = 2, seed: int = 1, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*batch(SAMPLES, modalities, seed=seed)), SIZE, **options)


def attach(method: eq.Method, modalities: int = 2, seed: int = 0) -> tuple[World, eq.Balancer]:
    world = World(modalities, seed=seed)
    return world, world.balance(method, train_loader=loader(modalities, seed + 1))


def run(world: World, balancer: eq.Balancer, data: Any, epochs: int) -> list[dict[str, list[bool]]]:
    """Train, and return for each batch which samples keep each modality."""
    seen = []
    for _ in range(epochs):
        for *inputs, target in balancer.batches(data):
            kept = {} if balancer.batch is None else balancer.batch[1]
            seen.append({name: mask.tolist() for name, mask in kept.items()})
            balancer.backward(balancer.loss(world.model(*inputs), target))
            balancer.modulate()
            world.optimizer.step()
            world.optimizer.zero_grad()
        balancer.end_epoch()
    return seen


def bits(logits: Any) -> float:
    """KL of the softmax from a uniform distribution, as the released code computes it."""
    p = np.exp(logits - np.max(logits))
    p = np.clip(p / p.sum(), 1e-9, 1)
    return float(sum(x * math.log2(x * len(p)) for x in p))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_training_equals_a_plain_loop(modalities: int, seed: int) -> None:
    """One epoch of warm-up and two that are remixed, momentum and weight decay included."""
    method = DataRemixing(warm_up=1, unimodal=0.7, warm_up_unimodal=0.4)
    world, balancer = attach(method, modalities, seed)
    twin = World(modalities, seed=seed)
    with torch.no_grad():
        balancer.make_modules(probe_shapes(world, modalities))
    heads = copy.deepcopy(method.readouts.layers)
    twin.optimizer.add_param_group({"params": list(heads.parameters())})
    run(world, balancer, loader(modalities, seed + 1), 3)

    *inputs, target = batch(SAMPLES, modalities, seed=seed + 1)
    encoders = list(twin.encoders.values())

    def step(rows: list[int], kept: set[int], weight: float) -> None:
        features = [e(x[rows]) for e, x in zip(encoders, inputs, strict=True)]
        gated = [z if m in kept else z * 0 for m, z in enumerate(features)]
        loss = nn.functional.cross_entropy(twin.model.head(torch.cat(gated, 1)), target[rows])
        for m in kept:
            alone = nn.functional.cross_entropy(heads[m](features[m]), target[rows])
            loss = loss + weight * alone
        twin.optimizer.zero_grad()
        loss.backward()
        twin.optimizer.step()

    for start in range(0, SAMPLES, SIZE):
        step(list(range(SAMPLES))[start : start + SIZE], set(range(modalities)), 0.4)
    for epoch in (1, 2):
        split: list[list[int]] = [[] for _ in range(modalities)]
        with torch.no_grad():
            alone = [h(e(x)) for h, e, x in zip(heads, encoders, inputs, strict=True)]
        for i in range(SAMPLES):
            values = [bits(u[i].numpy()) for u in alone]
            split[values.index(min(values))].append(i)
        batches = []
        for m, name in sorted(enumerate(world.encoders), key=lambda each: each[1]):
            part, number = split[m], zlib.crc32(name.encode())
            generator = torch.Generator().manual_seed(mix(0, SHUFFLE, epoch, number))
            shuffled = [part[i] for i in torch.randperm(len(part), generator=generator).tolist()]
            many = math.ceil(len(part) / SIZE)
            for j in range(many):  # when its turn comes, of an epoch from 0 to 1
                batches.append(((j + 0.5) / many, name, shuffled[j * SIZE : (j + 1) * SIZE], {m}))
        for _, _, rows, kept in sorted(batches, key=lambda each: each[:2]):
            step(rows, kept, 0.7)
    torch.testing.assert_close(weights(world.model), weights(twin.model), rtol=1e-8, atol=1e-11)
    torch.testing.assert_close(weights(method.readouts), weights(heads), rtol=1e-8, atol=1e-11)


def probe_shapes(world: World, modalities: int) -> eq.Shapes:
    names = list(world.encoders)
    assert len(names) == modalities
    return eq.Shapes(dict.fromkeys(names, (8,)), (3,), torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("modalities", [2, 3])
def test_a_batch_holds_one_modality_and_every_sample_comes_once(modalities: int) -> None:
    world, balancer = attach(DataRemixing(warm_up=1), modalities)
    run(world, balancer, loader(modalities), 1)
    data, indices = loader(modalities), []
    kinds = []
    for _ in balancer.batches(data):
        assert balancer.batch is not None
        numbers, kept = balancer.batch
        indices += numbers.tolist()
        (kind,) = {tuple(of) for of in zip(*(mask.tolist() for mask in kept.values()), strict=True)}
        assert sum(kind) == 1
        kinds.append(kind)
    assert sorted(indices) == list(range(SAMPLES))
    assert len(set(kinds)) > 1


def test_the_epochs_of_the_warm_up_are_the_loaders_own() -> None:
    world, balancer = attach(DataRemixing(warm_up=2))
    seen = run(world, balancer, loader(), 3)
    batches = math.ceil(SAMPLES / SIZE)
    assert all(not kept for kept in seen[: 2 * batches])
    assert all(kept for kept in seen[2 * batches :])


def test_a_modality_that_gets_no_sample_is_left_out() -> None:
    """A certain prediction everywhere: all samples go to the other."""
    method = DataRemixing(warm_up=1)
    world, balancer = attach(method)
    run(world, balancer, loader(), 1)
    method._remaining = torch.ones(SAMPLES, dtype=torch.long)
    before = [p.detach().clone() for p in method.readouts.layers[0].parameters()]
    seen = run(world, balancer, loader(), 1)
    assert all(all(kept["visual"]) and not any(kept["audio"]) for kept in seen)
    after = list(method.readouts.layers[0].parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert weights(world.model).isfinite().all()


def test_the_masked_modality_gets_no_gradient() -> None:
    method = DataRemixing(warm_up=1)
    world, balancer = attach(method)
    run(world, balancer, loader(), 1)
    for *inputs, target in balancer.batches(loader()):
        assert balancer.batch is not None
        kept = balancer.batch[1]
        balancer.backward(balancer.loss(world.model(*inputs), target))
        for name, encoder in world.encoders.items():
            norm = sum(p.grad.norm().item() for p in encoder.parameters() if p.grad is not None)
            assert (norm > 0) == bool(kept[name].all())
        balancer.modulate()
        world.optimizer.step()
        world.optimizer.zero_grad()


@pytest.mark.parametrize(("drop_last", "expected"), [(False, [3, 3, 1, 3, 2]), (True, [3, 3, 3])])
def test_parts_of_an_order_share_no_batch(drop_last: bool, expected: list[int]) -> None:
    class InParts(eq.Method):
        name = "in-parts"

        def order(self, samples: int, epoch: int) -> eq.Order:
            return eq.Order(list(range(12)), parts=[7, 0, 5])

    world = World()
    data = DataLoader(TensorDataset(*batch(12)), 3, drop_last=drop_last)
    balancer = world.balance(InParts())
    seen: list[list[int]] = []
    for _, _, target in balancer.batches(data):
        assert balancer.batch is not None
        seen.append(balancer.batch[0].tolist())
        assert torch.equal(target, batch(12)[2][seen[-1]])
    assert [len(of) for of in seen] == expected
    assert balancer.batch is None
    assert all(max(of) < 7 or min(of) >= 7 for of in seen)


def test_parts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(eq.SetupError, match=r"add up to 3 indices, found \[1, 1\]"):
        eq.Order([0, 1, 2], parts=[1, 1])


def parts_of_a_rank(rank: int) -> list[list[int]]:
    class InParts(eq.Method):
        name = "in-parts"

        def order(self, samples: int, epoch: int) -> eq.Order:
            return eq.Order(list(range(12)), parts=[7, 5])

    world = World()
    model = nn.parallel.DistributedDataParallel(world.model)
    balancer = world.balance(InParts(), model=model)
    seen = []
    for _ in balancer.batches(DataLoader(TensorDataset(*batch(12)), 3)):
        assert balancer.batch is not None
        seen.append(balancer.batch[0].tolist())
    return seen


def test_every_rank_has_as_many_batches_of_each_part() -> None:
    first, second = testing.spawn(parts_of_a_rank)
    assert [len(of) for of in first] == [len(of) for of in second] == [3, 1, 3]
    assert first == [[0, 2, 4], [6], [7, 9, 11]]
    assert second == [[1, 3, 5], [0], [8, 10, 7]]


@pytest.mark.parametrize("seed", [0, 1])
def test_separability_is_that_of_numpy(seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(3, 7, 5, dtype=torch.float64) * 4
    expected = [[bits(row.numpy()) for row in of] for of in logits]
    np.testing.assert_allclose(separability(logits).numpy(), expected, rtol=1e-6)
    smallest = [min(range(3), key=lambda m: expected[m][i]) for i in range(7)]
    assert least_separable(logits).tolist() == smallest


def test_separability_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(separability(logits), torch.tensor([math.log2(3), 0.0]))


def test_of_equals_the_last_is_taken() -> None:
    """As the released code does with its `<`."""
    assert least_separable(torch.zeros(3, 2, 4)).tolist() == [2, 2]


def test_a_third_modality_that_is_certain_changes_nothing() -> None:
    """M = 3 reduces to M = 2."""
    logits = torch.randn(2, 9, 3)
    certain = torch.tensor([[[99.0, 0, 0]]]).expand(1, 9, 3)
    assert torch.equal(least_separable(torch.cat([logits, certain])), least_separable(logits))


def test_missing_modalities_train_no_classifier() -> None:
    method = DataRemixing(warm_up=1)
    world, balancer = attach(method)
    *inputs, target = next(iter(balancer.batches(loader())))
    present = {"visual": torch.arange(SIZE) % 3 > 0}
    found = balancer.loss(world.model(*inputs), target, present=present)
    features = [e(x) for e, x in zip(world.encoders.values(), inputs, strict=True)]
    rows = present["visual"]
    ce = nn.functional.cross_entropy
    audio, visual = method.readouts.layers
    expected = ce(world.model(*inputs), target) + 0.5 * ce(audio(features[0]), target)
    alone = ce(visual(features[1][rows]), target[rows], reduction="sum")
    expected = expected + 0.5 * alone / SIZE
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"warm_up": 0}, "expected 1 or more epochs, found 0"),
        ({"unimodal": -1.0}, r"DataRemixing\(unimodal\): expected a weight of 0 or more"),
        ({"warm_up_unimodal": math.inf}, r"DataRemixing\(warm_up_unimodal\).*found inf"),
        ({"unimodal": math.nan}, "found nan"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        DataRemixing(**settings)


def test_other_data_than_was_split_is_refused() -> None:
    world, balancer = attach(DataRemixing(warm_up=1))
    run(world, balancer, loader(), 1)
    other = DataLoader(TensorDataset(*batch(12)), SIZE)
    with pytest.raises(eq.SetupError, match=r"30 samples.*12"):
        next(iter(balancer.batches(other)))


def test_training_data_is_asked_for() -> None:
    with pytest.raises(eq.SetupError, match="train_loader=train_loader"):
        World().balance(DataRemixing())


def test_other_tasks_are_refused() -> None:
    world = World(classes=1)
    balancer = world.balance(
        DataRemixing(), train_loader=loader(), criterion=nn.functional.mse_loss
    )
    *inputs, target = next(iter(balancer.batches(loader())))
    with pytest.raises(eq.SetupError, match="one class per sample"):
        balancer.loss(world.model(*inputs), target[:, None].double())


def soon() -> eq.Method:
    return DataRemixing(warm_up=1)


def test_ogm_leaves_batches_of_one_modality_alone() -> None:
    """Nothing is there to compare a modality with: ratios are undefined, coefficients are 1."""
    world = World()
    methods = [DataRemixing(warm_up=1), eq.OGM(5.0), eq.MultiLoss()]
    balancer = world.balance(*methods, train_loader=loader())
    run(world, balancer, loader(), 1)
    for *inputs, target in balancer.batches(loader()):
        balancer.backward(balancer.loss(world.model(*inputs), target))
        before = [p.grad.clone() for p in world.model.parameters() if p.grad is not None]
        balancer.modulate()
        after = [p.grad for p in world.model.parameters() if p.grad is not None]
        assert all(map(torch.equal, before, after))
        world.optimizer.step()
        world.optimizer.zero_grad()
