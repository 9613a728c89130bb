"""Encoders trained alone against loops written by hand, and the gap to joint training."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equimodal as eq
from equimodal.diagnostics.encoders.alone import alone
from equimodal.diagnostics.encoders.gap import gap
from equimodal.diagnostics.encoders.probes import Probes, probes
from equimodal.diagnostics.encoders.reinitialise import reinitialise
from equimodal.diagnostics.interval import Interval, mean_interval
from equimodal.diagnostics.subject import Subject
from equimodal.noise import mix
from equimodal.readout import Readouts
from support.subjects import LETTERS, WIDTH, Many, data, loader_of


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-3)


def halved(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.StepLR:
    return torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)


def by_hand(
    encoder: nn.Module,
    classifier: nn.Module,
    splits: Sequence[tuple[Tensor, Tensor]],
    epochs: int,
    size: int,
) -> tuple[list[float], int, Tensor]:
    """Train one encoder with its classifier: validation accuracies, best epoch, right on test."""
    (train, labels), (val, val_labels), (test, test_labels) = splits
    network = nn.Sequential(encoder, classifier)
    optimizer = sgd(network.parameters())
    schedule = halved(optimizer)
    curve, best = [], copy.deepcopy(network)
    for _ in range(epochs):
        for start in range(0, len(train), size):
            optimizer.zero_grad()
            rows = slice(start, start + size)
            F.cross_entropy(network(train[rows]), labels[rows]).backward()
            optimizer.step()
        schedule.step()
        reached = float((network(val).argmax(dim=1) == val_labels).double().mean())
        if not curve or reached > max(curve):
            best = copy.deepcopy(network)
        curve.append(reached)
    return curve, curve.index(max(curve)), best(test).argmax(dim=1) == test_labels


@pytest.mark.parametrize("modalities", [2, 3])
def test_every_encoder_is_trained_as_if_there_were_no_other(modalities: int) -> None:
    splits = [data(size, modalities, seed=seed) for seed, size in enumerate((70, 40, 50))]
    with Many(modalities).subject() as subject:
        found = alone(
            subject,
            *(loader_of(split, 16) for split in splits),
            sgd,
            epochs=6,
            fresh=lambda: Many(modalities, seed=9),
            schedule=halved,
            seed=3,
        )
    classifiers = Readouts()
    names = LETTERS[:modalities]
    shapes = dict.fromkeys(names, (WIDTH,))
    classifiers.build(eq.Shapes(shapes, (4,), torch.device("cpu"), torch.float32), mix(3, 1))
    model = Many(modalities, seed=9)
    for index, name in enumerate(names):
        own = [(split[index], split[-1]) for split in splits]
        curve, best, right = by_hand(model.encoders[name], classifiers.layers[index], own, 6, 16)
        assert found.validation[name] == curve
        assert found.epochs[name] == best
        assert torch.equal(found.values[name].bool(), right)
        assert found.accuracy[name] == mean_interval(right, seed=3)
    # The case that decides: somewhere the best epoch is not the last.
    assert any(epoch < 5 for epoch in found.epochs.values())
    assert torch.equal(found.target, splits[2][-1])
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_trained_encoders_can_be_examined_further() -> None:
    splits = [loader_of(data(40, 2, seed=seed), 16) for seed in range(3)]
    with Many(2).subject() as subject:
        found = alone(subject, *splits, sgd, 3)
    right = [
        torch.cat([s.unimodal[n].argmax(1) == s.target for s in found.subject.steps(splits[2])])
        for n in "ab"
    ]
    assert torch.equal(torch.stack(right), torch.stack([found.values[n].bool() for n in "ab"]))
    read = probes(found.subject, splits[0], splits[2])
    assert set(read.accuracy) == {"a", "b"}


def test_the_same_call_gives_the_same_bits_and_the_model_stays_as_it_is() -> None:
    model = Many(2)
    before = copy.deepcopy(model.state_dict())
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        loaders = [loader_of(data(40, 2, seed=seed), 16, shuffle=True) for seed in range(3)]
        with model.subject() as subject:
            found.append(alone(subject, *loaders, sgd, 3))
    first, second = found
    assert first.validation == second.validation
    assert torch.equal(first.values["a"], second.values["a"])
    assert torch.equal(first.target, second.target)
    for one, other in zip(
        first.subject.model.parameters(), second.subject.model.parameters(), strict=True
    ):
        assert torch.equal(one, other)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


# ---------------------------------------------------------------- starting anew


class Gated(nn.Module):
    """A parameter that no module knows how to reset."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, WIDTH)
        self.gate = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.gate


class Reset(Gated):
    def reset_parameters(self) -> None:
        nn.init.constant_(self.gate, 2.0)


def test_encoders_start_anew_as_their_modules_do() -> None:
    attention = nn.MultiheadAttention(4, 2)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Conv1d(4, 2, 1), Reset())
    encoder[1].running_mean.fill_(7.0)
    encoder[0].bias.requires_grad_(False)
    frozen, before = encoder[0].bias.clone(), copy.deepcopy(encoder)
    torch.manual_seed(5)
    reinitialise({"audio": [encoder], "visual": [attention]})
    assert torch.equal(encoder[0].bias, frozen)
    assert not torch.equal(encoder[0].weight, before[0].weight)
    assert encoder[0].weight.abs().max() <= 3**-0.5  # the bound of nn.Linear's own
    assert torch.equal(encoder[1].running_mean, torch.zeros(4))
    assert torch.equal(encoder[3].gate, torch.full((WIDTH,), 2.0))
    parameters = [*encoder.parameters(), *attention.parameters()]
    assert all(parameter.isfinite().all() for parameter in parameters)


def test_data_to_train_on_that_hold_nothing_are_refused() -> None:
    with Many(2).subject() as subject, pytest.raises(eq.SetupError, match="train_loader: expected"):
        alone(subject, [], [data(20, 2)], [data(20, 2)], sgd, 1)


def test_parameters_that_nobody_resets_are_named() -> None:
    model = Many(2)
    model.encoders["b"] = Gated()
    with model.subject() as subject:
        with pytest.raises(
            eq.SetupError, match=r"no module has a reset_parameters\(\) for b: gate"
        ):
            alone(subject, [data(20, 2)], [data(20, 2)], [data(20, 2)], sgd, 1)
        torch.testing.assert_close(model.encoders["b"].gate, torch.ones(WIDTH))  # ours is whole

        def fresh() -> nn.Module:
            new = Many(2)
            new.encoders["b"] = Gated()
            return new

        alone(subject, [data(20, 2)], [data(20, 2)], [data(20, 2)], sgd, 1, fresh=fresh)


# ---------------------------------------------------------------- what cannot be alone


class Entangled(Many):
    """The second encoder is given what the first makes of its input."""

    def features(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        a = self.encoders["a"](inputs[0])
        return {"a": a, "b": self.encoders["b"](inputs[1] + a[:, :3])}


class Prepared(Many):
    """What comes before an encoder learns too."""

    def __init__(self) -> None:
        super().__init__(2)
        self.before = nn.Linear(3, 3)

    def features(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        return super().features([self.before(inputs[0]), inputs[1]])


def tied() -> Many:
    model = Many(2)
    model.encoders["b"][0].weight = model.encoders["a"][0].weight
    return model


@pytest.mark.parametrize(
    ("make", "who", "what"),
    [
        (lambda: Entangled(2), "b", r"encoders\.a\.0\.weight"),
        (Prepared, "a", r"before\.weight, before\.bias"),
        (tied, "a", r"encoders\.a\.0\.weight"),
    ],
)
def test_encoders_that_depend_on_others_are_refused(
    make: Callable[[], Many], who: str, what: str
) -> None:
    batches = [data(20, 2)]
    with (
        make().subject() as subject,
        pytest.raises(eq.SetupError, match=rf"{who} cannot be trained alone.*{what}"),
    ):
        alone(subject, batches, batches, batches, sgd, 1)


def test_other_mistakes_are_refused() -> None:
    batches = [data(20, 2)]
    with Many(2).subject() as subject:
        with pytest.raises(eq.SetupError, match="epochs: expected 1 or more"):
            alone(subject, batches, batches, batches, sgd, 0)
        with pytest.raises(eq.SetupError, match="passed over twice"):
            alone(subject, iter(batches), batches, batches, sgd, 1)
        with pytest.raises(eq.SetupError, match="gave no batch"):
            alone(subject, batches, [], batches, sgd, 1)


# ---------------------------------------------------------------- the gap


def test_the_gap_names_the_encoder_that_joint_training_left_behind() -> None:
    """The weak encoder was frozen as it started: alone it would have learned."""
    splits = [loader_of(data(300, 2, seed=seed), 32) for seed in range(3)]
    model = Many(2, seed=2)
    with torch.no_grad():
        model.encoders["b"][0].weight.zero_()  # it tells nothing
    optimizer = sgd([*model.encoders["a"].parameters(), *model.head.parameters()])
    for _ in range(10):
        for *inputs, target in splits[0]:
            optimizer.zero_grad()
            F.cross_entropy(model(*inputs), target).backward()
            optimizer.step()
    with model.subject() as subject:
        read = probes(subject, splits[0], splits[2])
        reached = alone(subject, *splits, sgd, 10)
    found = gap(reached, read)
    assert found.difference["b"].low > 0.05
    assert not found.difference["a"].excludes(0)
    alike = gap(probes(reached.subject, splits[0], splits[2]), read)
    assert alike.difference["b"].low > 0.05
    assert not alike.difference["a"].excludes(0)
    json.dumps(found.to_dict(), allow_nan=False)


def known(values: Tensor, target: Tensor) -> Probes:
    return Probes({}, {"a": values, "b": values}, target, {}, {})


def test_the_gap_is_paired_over_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (200,), generator=generator)
    jointly = (torch.rand(200, generator=generator) < 0.6).double()
    better = jointly.clone()
    better[torch.randperm(200, generator=generator)[:20]] = 1.0
    found = gap({"a": better}, known(jointly, target)).difference["a"]
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(1000):
        rows = torch.randint(200, (200,), generator=generator)
        drawn.append(float((better[rows] - jointly[rows]).mean()))
    low, high = torch.tensor(drawn).double().quantile(torch.tensor([0.025, 0.975]).double())
    assert found.value == pytest.approx(float(better.mean() - jointly.mean()), abs=1e-12)
    assert found.low == pytest.approx(float(low), abs=1e-6)
    assert found.high == pytest.approx(float(high), abs=1e-6)


def test_the_gap_takes_what_is_known_already() -> None:
    target = torch.tensor([0, 1, 2, 1])
    jointly = torch.tensor([1.0, 0, 0, 0]).double()
    predictions, right = torch.tensor([0, 1, 0, 1]), torch.tensor([True, True, False, True])
    found = gap({"a": predictions, "b": right}, known(jointly, target)).difference
    assert found["a"] == found["b"]
    assert found["a"].value == 0.5
    accuracy = gap({"a": 0.9}, known(jointly, target)).difference["a"]
    assert accuracy.value == pytest.approx(0.65)
    assert not accuracy.known, "how sure 0.9 is nobody knows, so nor is the gap"
    assert accuracy.to_dict() == {"value": accuracy.value, "low": None, "high": None}
    assert f"{accuracy:+}" == "+65.0"
    assert Interval.from_dict(Interval(0.5, 0.4, 0.6).to_dict()) == Interval(0.5, 0.4, 0.6)


def test_samples_that_do_not_pair_are_refused() -> None:
    target = torch.tensor([0, 1, 2, 1])
    read = known(torch.ones(4).double(), target)
    splits = [[data(20, 2, seed=seed)] for seed in range(3)]
    with Many(2).subject() as subject:
        reached = alone(subject, *splits, sgd, 1)
        other = probes(subject, splits[0], splits[1])
    with pytest.raises(eq.SetupError, match="pass the same loader to both"):
        gap(reached, other)
    with pytest.raises(eq.SetupError, match=r"each of 4 samples.*found shape \(3,\)"):
        gap({"a": torch.ones(3)}, read)
    with pytest.raises(eq.SetupError, match="expected an accuracy between 0 and 1 for a, found 78"):
        gap({"a": 78.1}, read)
    with pytest.raises(eq.SetupError, match="gap: unknown modality 'c'"):
        gap({"c": 0.5}, read)


def test_a_model_without_a_head_and_an_encoder_in_several_modules() -> None:
    class Dual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.up = nn.Linear(3, 5), nn.Linear(5, 4)
            self.b = nn.Linear(3, 4)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.up(self.a(a).tanh()) + self.b(b)

    torch.manual_seed(0)
    model = Dual()
    encoders = {"a": [model.a, model.up], "b": model.b}
    splits = [[data(60, 2, seed=seed)] for seed in range(3)]
    with Subject(model, encoders, scores=eq.Ablation()) as subject:
        found = alone(subject, *splits, lambda parameters: torch.optim.Adam(parameters, 0.05), 20)
    assert found.accuracy["a"].low > 0.25
