"""What stands for a modality that is left out, against what it must be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import equimodal as eq
from equimodal.diagnostics.contributions.fills import Mean, Shuffled, make_fills
from equimodal.diagnostics.contributions.moments import moments
from support.subjects import Many, Sum, Through, data, loader_of


def test_moments_are_those_of_all_features_at_once() -> None:
    model, tensors = Many(3), data(61)
    with torch.no_grad():
        features = model.features(tensors[:-1])
    with model.subject() as subject:
        found = moments(subject, loader_of(tensors, 16))
    assert found.samples == 61
    for name, feature in features.items():
        torch.testing.assert_close(found.means[name], feature.mean(dim=0))
        torch.testing.assert_close(found.deviations[name], feature.std(dim=0, correction=0))
        torch.testing.assert_close(found.pool[name], feature)


def test_a_large_mean_does_not_eat_the_deviation() -> None:
    features = torch.randn(400, 2, generator=torch.Generator().manual_seed(0)) + 4096
    target = torch.zeros(400, dtype=torch.int64)
    with Through(2, Sum()).subject() as subject:
        found = moments(subject, loader_of([features, features, target], 7))
    expected = features.double().std(dim=0, correction=0)
    torch.testing.assert_close(found.deviations["a"].double(), expected, rtol=1e-3, atol=0)


def test_every_sample_has_the_same_chance_to_be_in_a_small_pool() -> None:
    features = torch.arange(20.0)[:, None].expand(-1, 2)
    times = torch.zeros(20)
    with Through(2, Sum()).subject() as subject:
        batches = loader_of([features, features, torch.zeros(20).long()], 6)
        for seed in range(200):
            found = moments(subject, batches, seed, limit=5)
            pool = found.pool["a"][:, 0]
            assert found.places.tolist() == pool.tolist()
            assert len(pool) == 5
            assert (pool.diff() > 0).all()  # in the order of the pass, none twice
            times[pool.long()] += 1
    expected, spread = 200 * 5 / 20, (200 * 0.25 * 0.75) ** 0.5
    assert ((times - expected).abs() < 4 * spread).all()


def numbered(size: int) -> dict[str, Tensor]:
    """Features that say which sample they are of."""
    return {"a": torch.arange(float(size))[:, None], "b": -torch.arange(float(size))[:, None]}


def drawn(fill: Shuffled, of: dict[str, Tensor], draw: int, batch: int = 3) -> Tensor:
    """Which samples stand for those of a pass in batches."""
    found = []
    for start in range(0, len(of["a"]), batch):
        part = {name: feature[start : start + batch] for name, feature in of.items()}
        other = fill(part, start, draw)
        assert torch.equal(other["a"], -other["b"])  # all of one and the same sample
        found.append(other["a"][:, 0])
    return torch.cat(found).long()


@pytest.mark.parametrize("size", [2, 3, 7, 20])
def test_other_samples_are_a_permutation_without_fixed_points(size: int) -> None:
    of, places = numbered(size), torch.arange(size)
    draws = [drawn(Shuffled(of, places, 4, seed=1), of, draw) for draw in range(4)]
    for found in draws:
        assert found.sort().values.tolist() == list(range(size))
        assert (found != torch.arange(size)).all()
    if size > 4:
        assert (torch.stack(draws).sort(dim=0).values.diff(dim=0) > 0).all()  # another every time
    again = Shuffled(of, places, 4, seed=1)
    assert all(torch.equal(drawn(again, of, d), draws[d]) for d in range(4))


def test_no_sample_of_larger_data_meets_itself() -> None:
    of = numbered(40)
    for seed in range(30):
        places = torch.randperm(40, generator=torch.Generator().manual_seed(seed))[:6].sort().values
        fill = Shuffled({name: f[places] for name, f in of.items()}, places, draws=2, seed=seed)
        for draw in range(2):
            found = drawn(fill, of, draw)
            assert (found != torch.arange(40)).all()
            assert set(found.tolist()) == set(places.tolist())


def test_samples_with_equal_features_may_meet() -> None:
    """Where an encoder is sure of the class, samples of one class look like copies."""
    of = {"a": torch.zeros(50, 3), "b": (torch.arange(50) % 2).float()[:, None].expand(-1, 3)}
    fill = Shuffled(of, torch.arange(50), draws=4)
    alike = torch.stack([fill(of, 0, draw)["b"][:, 0] == of["b"][:, 0] for draw in range(4)])
    assert 0.3 < float(alike.float().mean()) < 0.7


def test_a_loader_that_shuffles_has_partners_too() -> None:
    tensors = data(30, 2)
    rows = torch.arange(30.0)[:, None].expand(-1, 2)
    batches = loader_of([rows, rows, tensors[-1]], 8, shuffle=True)
    with Through(2, Sum()).subject() as subject:
        fill = make_fills(["shuffled"], subject, batches, draws=1)["shuffled"]
        start, pairs = 0, []
        for step in subject.steps(batches):
            pairs.append((step.features["a"][:, 0], fill(step.features, start, 0)["a"][:, 0]))
            start += step.size
    own, others = (torch.cat(each) for each in zip(*pairs, strict=True))
    assert (own != others).all()


def test_the_mean_is_that_of_the_reference() -> None:
    tensors, others = data(20), data(30, seed=5)
    model = Many(3)
    with model.subject() as subject:
        fill = make_fills(["mean"], subject, loader_of(others))["mean"]
        assert isinstance(fill, Mean)
        with torch.no_grad():
            expected = model.features(others[:-1])["b"].mean(dim=0)
            found = fill(model.features(tensors[:-1]), 0, 0)["b"]
    torch.testing.assert_close(found, expected.expand(20, -1))


def test_what_cannot_be_filled_is_refused() -> None:
    tensors = data(8)
    with Many(3).subject() as subject:
        batches = loader_of(tensors, 4)
        with pytest.raises(eq.SetupError, match="unknown fill 'shufled': did you mean 'shuffled'"):
            make_fills(["shufled"], subject, batches)
        with pytest.raises(eq.SetupError, match="expected some of zero, mean, shuffled"):
            make_fills("zero", subject, batches)
        with pytest.raises(eq.SetupError, match="draws: expected 1 or more, found 0"):
            make_fills(["shuffled"], subject, batches, draws=0)
        with pytest.raises(eq.SetupError, match=r"passed over twice.*generator can be.*once"):
            make_fills(["mean"], subject, (batch for batch in batches))
        with pytest.raises(eq.SetupError, match="gave no batch"):
            make_fills(["mean"], subject, [])
        with pytest.raises(eq.SetupError, match="two samples or more, found 1"):
            make_fills(["shuffled"], subject, [[tensor[:1] for tensor in tensors]])


def test_features_of_several_lengths_have_no_mean() -> None:
    class Longest(torch.nn.Module):
        def forward(self, *features: Tensor) -> Tensor:
            return torch.stack([feature.mean(dim=1) for feature in features]).sum(dim=0)

    target = torch.zeros(4, dtype=torch.int64)
    batches = [(torch.ones(4, t, 3), torch.ones(4, t, 3), target) for t in (5, 7)]
    with Through(2, Longest()).subject() as subject:
        with pytest.raises(eq.SetupError, match=r"shapes \(5, 3\) and \(7, 3\).*'zero' alone"):
            make_fills(["zero", "mean"], subject, batches)
        assert list(make_fills(["zero"], subject, batches)) == ["zero"]
