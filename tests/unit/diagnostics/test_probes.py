"""Linear probes: what they read, and that nothing else decides about them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.encoders.logistic import choose_logistic
from equimodal.diagnostics.encoders.probes import probes
from equimodal.diagnostics.interval import mean_interval
from equimodal.diagnostics.subject import Subject
from support.subjects import Many, Sum, Through, data, loader_of


def test_probes_are_regressions_on_the_features_of_the_frozen_encoders() -> None:
    model, train, test = Many(3), data(80), data(70, seed=1)
    with model.subject() as subject:
        found = probes(subject, loader_of(train, 16), loader_of(test, 32), seed=4)
    with torch.no_grad():
        features, tested = model.features(train[:-1]), model.features(test[:-1])
    for name in "abc":
        fitted = choose_logistic(features[name], train[-1], 4, seed=4)
        right = fitted.logits(tested[name]).argmax(dim=1) == test[-1]
        assert torch.equal(found.values[name].bool(), right)
        assert found.accuracy[name] == mean_interval(right, seed=4)
        assert found.strengths[name] == fitted.strength
        assert found.widths[name] == 5
    assert torch.equal(found.target, test[-1])
    json.dumps(found.to_dict(), allow_nan=False)
    assert set(found.to_dict()["a"]) == {"value", "low", "high"}


def test_a_probe_finds_what_the_head_ignores() -> None:
    """The second modality tells all, the first nothing, and the head listens to the first alone."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (300,), generator=generator)
    noise = torch.randn(300, 3, generator=generator)
    signal = 3.0 * nn.functional.one_hot(target, 3)

    class First(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + 0 * b

    model = Through(2, First())
    train, test = (
        loader_of([noise[s], signal[s], target[s]]) for s in (slice(200), slice(200, 300))
    )
    with model.subject(scores=eq.Ablation()) as subject:
        found = probes(subject, train, test)
    assert found.accuracy["b"].value == 1
    assert found.accuracy["a"].excludes(0.6)
    assert not found.accuracy["a"].excludes(1 / 3)


def test_probes_are_the_same_whatever_a_loader_draws_from() -> None:
    train, test = data(80), data(40, seed=1)
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        with Many(3).subject() as subject:
            loaders = loader_of(train, 7, shuffle=True), loader_of(test, 9, shuffle=True)
            for _ in range(2):
                found.append(probes(subject, *loaders))
    for other in found[1:]:
        assert other.accuracy == found[0].accuracy
        assert other.strengths == found[0].strengths
        assert all(torch.equal(other.values[n], found[0].values[n]) for n in "abc")


class Maps(nn.Module):
    """Two modalities whose features have positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 3, 2)
        self.b = nn.Linear(2, 4)
        self.head = Pooled()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(self.a(a), self.b(b))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.linear(torch.cat([a.mean(dim=(2, 3)), b.mean(dim=1)], dim=1))


def test_positions_are_averaged_or_pooled_as_asked() -> None:
    torch.manual_seed(0)
    model, target = Maps(), torch.randint(3, (60,))
    batch = (torch.randn(60, 1, 4, 5), torch.randn(60, 6, 2), target)
    with Subject(model, {"a": model.a, "b": model.b}, model.head) as subject:
        mean = probes(subject, [batch], [batch])
        flat = probes(subject, [batch], [batch], pool=lambda f: f.flatten(1))
        with pytest.raises(eq.SetupError, match=r"pool: expected vectors of shape \(60, D\)"):
            probes(subject, [batch], [batch], pool=lambda f: f)
    assert mean.widths == {"a": 3, "b": 4}
    assert flat.widths == {"a": 3 * 3 * 4, "b": 6 * 4}
    with torch.no_grad():
        by_hand = model.a(batch[0]).mean(dim=(2, 3))
    fitted = choose_logistic(by_hand, target, 3)
    assert mean.accuracy["a"].value == float(
        (fitted.logits(by_hand).argmax(1) == target).double().mean()
    )


def test_ignored_samples_do_not_count() -> None:
    model, train, test = Many(2), data(60, 2), data(50, 2, seed=1)
    marked = [*train[:-1], train[-1].clone()], [*test[:-1], test[-1].clone()]
    for tensors in marked:
        tensors[-1][::3] = -7
    kept = [[t[tensors[-1] >= 0] for t in tensors] for tensors in marked]
    criterion = nn.CrossEntropyLoss(ignore_index=-7)
    with model.subject(criterion=criterion) as subject:
        found = probes(subject, *([loader_of(t, 100) for t in marked]))
        expected = probes(subject, *([loader_of(t, 100) for t in kept]))
    assert found.accuracy == expected.accuracy
    assert len(found.target) == len(kept[1][-1])


def test_a_metric_of_the_users_own() -> None:
    def true_class(logits: Tensor, target: Tensor) -> Tensor:
        return logits.softmax(dim=1).gather(1, target[:, None])[:, 0]

    with Many(2).subject() as subject:
        found = probes(subject, [data(60, 2)], [data(60, 2)], metric=true_class)
    assert 0 < found.values["a"].min() < found.values["a"].max() < 1


def test_what_cannot_be_probed_is_refused() -> None:
    with Many(2).subject(criterion=nn.functional.mse_loss) as subject:
        *inputs, _ = data(20, 2)
        with pytest.raises(eq.MatchError, match="a linear probe is defined for one class per"):
            probes(subject, [(*inputs, torch.randn(20, 4))], [(*inputs, torch.randn(20, 4))])
    model = Through(2, Sum())
    target = torch.randint(3, (20,))
    broken = (torch.full((20, 3), torch.nan), torch.randn(20, 3), target)
    with model.subject(scores=eq.Ablation()) as subject:
        with pytest.raises(eq.SetupError, match="the feature of a is NaN or infinite"):
            probes(subject, [broken], [broken])
        with pytest.raises(eq.SetupError, match="a loader gave none that has a class"):
            probes(subject, [], [broken])
        with pytest.raises(eq.SetupError, match="strengths: expected one or more positive"):
            probes(subject, [broken], [broken], strengths=[0.0])


def test_probes_that_nobody_trained_are_refused_as_scores() -> None:
    model = Many(2)
    with pytest.raises(eq.SetupError, match=r"scores=balancer\.scores"):
        model.subject(scores=eq.Probe())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with eq.Balancer(
        eq.OGM(0.8), model, model.encoders, model.head, optimizer, scores=eq.Probe()
    ) as balancer:
        *inputs, target = data(20, 2)
        balancer.backward(balancer.loss(model(*inputs), target))
        balancer.modulate()
        optimizer.step()
    with model.subject(scores=balancer.scores) as subject:
        (step,) = subject.steps([(*inputs, target)])
        with torch.no_grad():
            expected = balancer.scores.readouts(model.features(inputs))
    torch.testing.assert_close(step.unimodal["b"], expected["b"])
