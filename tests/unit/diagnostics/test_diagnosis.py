"""A diagnosis against the truth where it is known, against slow twins, as JSON and as text."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equimodal.data import Splits, Synthetic
from equimodal.diagnostics.advice.diagnose import Spread, diagnose
from equimodal.diagnostics.advice.diagnosis import Diagnosis
from equimodal.diagnostics.encoders.alone import Alone, alone
from equimodal.diagnostics.encoders.fused import fused
from equimodal.diagnostics.encoders.threads import one_thread
from equimodal.diagnostics.subject import Subject
from equimodal.errors import MatchError, SetupError
from equimodal.report.findings import read
from equimodal.scores import Ablation
from equimodal.training.models import Fusion, model_for
from support.subjects import LETTERS, Many, data, loader_of

PAIR = {"fast": 0.8, "slow": 0.8}
SLOW = {"slow": 0.02}
THREE = {"fast": 0.6, "other": 0.6, "slow": 0.6}


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def trained(splits: Splits[Any], fusion: Fusion, epochs: int) -> nn.Module:
    model = model_for(splits, fusion)
    updates, loader = optimizer(model.parameters()), splits.train.loader(64, shuffle=True)
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        for *inputs, target in loader:
            F.cross_entropy(model(*inputs), target).backward()
            updates.step()
            updates.zero_grad()
    return model


def examined(synthetic: Synthetic, fusion: Fusion = "concat", epochs: int = 12) -> Diagnosis:
    """Train a model and its encoders alone, and diagnose it on the test split."""
    splits = synthetic.splits()
    model: Any = trained(splits, fusion, epochs)
    test = splits.test.loader(600)
    with Subject(model, dict(model.encoders.items()), model.head) as subject:
        reached = alone(
            subject,
            splits.train.loader(64, shuffle=True),
            splits.val.loader(600),
            test,
            optimizer,
            epochs,
            fresh=lambda: model_for(splits, fusion),
            resamples=100,
        )
        return diagnose(
            subject, splits.train.loader(512), test, alone=reached, resamples=100,
            classes=splits.classes, data="synthetic",
        )  # fmt: skip


@cache
def slow() -> Diagnosis:
    return examined(Synthetic(PAIR, SLOW))


# ------------------------------------------------------------------ the truth is known


def test_a_slow_modality_is_ignored_and_unimodal_losses_would_mend_it() -> None:
    """Joint training reaches 86, multi-loss 93, the best classifier 96.7."""
    found = slow()
    assert found.advice is not None
    assert found.advice.verdict == "unimodal losses"
    assert found.advice.ignored == ("slow",)
    assert "multi-loss" in found.advice.next
    assert found.leading == "fast"
    assert found.behind["slow"].low > 0.3
    assert found.together is not None
    assert found.together.alone.low > found.accuracy.high
    assert abs(found.together.alone.value - Synthetic(PAIR, SLOW).optimal()) < 0.03


def test_a_slow_modality_that_knows_most_leads_and_is_used_in_part() -> None:
    """Joint training reaches 90, multi-loss 95.9, which is all there is."""
    found = examined(Synthetic({"fast": 0.5, "slow": 0.9}, SLOW), epochs=16)
    assert found.advice is not None
    assert found.advice.verdict == "unimodal losses"
    assert found.advice.ignored == ()
    assert found.leading == "slow"
    assert found.together is not None
    assert found.together.refit.low > 0.03


def test_what_is_slow_to_train_alone_too_has_something_to_tell() -> None:
    """After four epochs the slow encoder alone is at chance; a probe reads 84 from it."""
    found = examined(Synthetic(PAIR, {"slow": 0.005}), epochs=4)
    assert found.alone_tells == {"fast": True, "slow": False}
    assert found.advice is not None
    assert found.advice.verdict == "unimodal losses"
    assert found.advice.ignored == ("slow",)


def test_a_slow_modality_that_tells_nothing_new_is_better_left_alone() -> None:
    """It is ignored as much, but neither multi-loss nor DGL brings anything."""
    found = examined(Synthetic(PAIR, SLOW, redundancy=1.0))
    assert found.advice is not None
    assert found.advice.ignored == ("slow",)
    assert found.advice.verdict == "do not balance"
    assert found.together is not None
    assert found.together.over_best.low <= 0, "the others add nothing to the best one"


@pytest.mark.parametrize("redundancy", [0.0, 1.0])
def test_equally_fast_modalities_are_balanced(redundancy: float) -> None:
    found = examined(Synthetic(PAIR, redundancy=redundancy))
    assert found.advice is not None
    assert found.advice.verdict == "balanced"
    assert found.advice.ignored == ()


def test_noise_is_not_an_ignored_modality() -> None:
    found = examined(Synthetic({"good": 0.9, "noise": 0.0}))
    assert found.advice is not None
    assert found.advice.verdict == "do not balance"
    assert found.advice.ignored == ()
    assert found.alone_tells == {"good": True, "noise": False}
    assert not found.read["noise"].tells


def test_modalities_that_tell_only_together_are_not_to_be_balanced() -> None:
    found = examined(Synthetic(dict.fromkeys("ab", 0.0), synergy=1.0, classes=3), "film", 30)
    assert found.accuracy.low > 0.9, "film can multiply"
    assert found.advice is not None
    assert found.advice.verdict == "do not balance"
    assert "combination" in found.advice.summary


def test_of_three_the_slow_one_is_ignored() -> None:
    found = examined(Synthetic(THREE, SLOW))
    assert found.advice is not None
    assert found.advice.ignored == ("slow",)
    assert found.advice.verdict == "unimodal losses"


# ------------------------------------------------------------------ numbers


@pytest.fixture(scope="module")
def many() -> Iterator[tuple[Subject, Any, Any]]:
    with Many(3).subject() as subject:
        yield subject, loader_of(data(200)), loader_of(data(150, seed=1))


def test_numbers_are_those_of_a_slow_twin(many: tuple[Subject, Any, Any]) -> None:
    subject, train, loader = many
    found = diagnose(subject, train, loader, resamples=50)
    *inputs, target = data(150, seed=1)
    model: Any = subject.model
    with torch.no_grad():
        features = model.features(inputs)
        right = model(*inputs).argmax(dim=1) == target
        assert found.accuracy.value == pytest.approx(right.double().mean().item())
        largest = target.bincount().max().item() / 150
        assert found.above_chance.value == pytest.approx(right.double().mean().item() - largest)
        for name in subject.names:
            accuracies = {}
            for fill in ("zero", "mean"):
                others = {
                    n: torch.zeros_like(f) if fill == "zero" else f.mean(dim=0).expand_as(f)
                    for n, f in features.items()
                }
                logits = model.head(*{**others, name: features[name]}.values())
                nothing = model.head(*others.values())
                hits = (logits.argmax(dim=1) == target).double()
                accuracies[fill] = hits.mean().item()
                if fill == found.read[name].fill:
                    beyond = hits - (nothing.argmax(dim=1) == target).double()
                    assert found.read[name].beyond.value == pytest.approx(beyond.mean().item())
            read = found.read[name]
            assert read.accuracy.value >= max(accuracies.values()) - 1e-9
            if read.fill in accuracies:
                assert read.accuracy.value == pytest.approx(accuracies[read.fill])
            assert found.probes is not None
            assert found.shortfall is not None
            expected = found.probes[name].value - read.accuracy.value
            assert found.shortfall[name].value == pytest.approx(expected)
    sums = {n: sum(of[n].value for of in found.shapley.values()) for n in subject.names}
    assert found.leading == max(sums, key=lambda name: sums[name])
    for name, gap in found.behind.items():
        gaps = [of[found.leading].value - of[name].value for of in found.shapley.values()]
        assert any(gap.value == pytest.approx(each) for each in gaps)


def test_what_is_known_of_the_encoders_alone_needs_no_training(
    many: tuple[Subject, Any, Any],
) -> None:
    subject, train, loader = many
    known = {"a": 0.9, "b": 0.7, "c": 0.3}
    found = diagnose(subject, train, loader, alone=known, resamples=50)
    assert found.alone is not None
    assert found.gap is not None
    assert found.probes is not None
    assert found.together is None
    for name, accuracy in known.items():
        assert found.alone[name].value == pytest.approx(accuracy)
        expected = accuracy - found.probes[name].value
        assert found.gap[name].value == pytest.approx(expected)
        assert not found.alone[name].known
        assert not found.gap[name].known
        assert (found.shortfall or {})[name].known, "of its probe, which was measured"
    text = str(found)
    assert re.search(r"its encoder trained alone +90\.0$", text, re.MULTILINE)
    assert re.search(r"gap, alone minus probe +[+-][\d.]+$", text, re.MULTILINE)
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert str(Diagnosis.from_dict(written)) == text


def test_the_head_on_all_features_is_a_logistic_regression_on_their_row() -> None:
    from equimodal.diagnostics.encoders.logistic import fit_logistic

    with Many(2).subject() as subject:
        sets = [data(size, 2, seed=seed) for size, seed in ((300, 0), (200, 1))]
        reached = fused(subject, *map(loader_of, sets), strengths=(0.01,))
        model: Any = subject.model
        with torch.no_grad():
            rows = [torch.cat(list(model.features(each[:-1]).values()), dim=1) for each in sets]
        fitted = fit_logistic(rows[0], sets[0][-1], 4, 0.01)
        expected = fitted.logits(rows[1]).argmax(dim=1) == sets[1][-1]
    assert torch.equal(reached.values.bool(), expected)


def test_what_better_encoders_and_another_head_would_bring_are_differences() -> None:
    found = slow()
    assert found.together is not None
    assert found.alone is not None
    put, model = found.together, found.accuracy.value
    better = max(model, put.joint.value)
    assert put.promise.value == pytest.approx(put.alone.value - better)
    assert put.refit.value == pytest.approx(put.joint.value - model)
    best = max(each.value for each in found.alone.values())
    assert put.over_best.value == pytest.approx(put.alone.value - best)


def test_frozen_encoders_have_no_gradients_and_are_not_balanced() -> None:
    model = Many(2)
    model.encoders.requires_grad_(False)
    train, loader = loader_of(data(200, 2)), loader_of(data(150, 2, seed=1))
    updates = torch.optim.SGD(model.head.parameters(), lr=0.3)
    for _ in range(15):
        for *inputs, target in train:
            F.cross_entropy(model(*inputs), target).backward()
            updates.step()
            updates.zero_grad()
    with model.subject() as subject:
        found = diagnose(subject, train, loader, resamples=50)
    assert found.gradients is None
    assert found.advice is not None
    assert found.advice.verdict == "do not balance"


@pytest.mark.parametrize(
    ("size", "taken"),
    [(3, [0, 1, 2]), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (12, [0, 3, 6, 9]), (13, [0, 4, 8, 12])],
)
def test_gradients_are_of_batches_from_all_of_the_data(size: int, taken: list[int]) -> None:
    assert list(Spread(list(range(size)), 4)) == taken
    assert list(Spread(iter(range(size)), 4)) == list(range(min(size, 4)))


def test_nothing_is_left_behind(many: tuple[Subject, Any, Any]) -> None:
    subject, train, loader = many
    model = subject.model
    model.train()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, python = torch.get_rng_state(), random.getstate()
    diagnose(subject, train, loader, resamples=20)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hooks == [len(module._forward_hooks) for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert python == random.getstate()


def test_twice_is_the_same(many: tuple[Subject, Any, Any]) -> None:
    subject, train, loader = many
    found = [diagnose(subject, train, loader, resamples=20).to_dict() for _ in range(2)]
    for each in found:
        del each["cost"]["seconds"], each["cost"]["seconds_step"]
    assert json.dumps(found[0]) == json.dumps(found[1])


def test_a_tenth_modality_has_sampled_shapley_values() -> None:
    with Many(9).subject() as subject:
        found = diagnose(subject, None, loader_of(data(40, 9)), resamples=20)
    assert set(found.shapley["mean"]) == set(LETTERS[:9])
    assert found.advice is not None
    assert found.advice.verdict == "cannot tell"


@pytest.mark.parametrize("small", [True, False])
def test_threads_are_as_before_after_small_work(small: bool) -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), one_thread(small):
        assert torch.get_num_threads() == (1 if small else before)
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


# ------------------------------------------------------------------ refusals


class Other(list[Any]):
    """Batches in another order in every other pass."""

    def __iter__(self) -> Iterator[Any]:
        self.reverse()
        return super().__iter__()


def test_data_in_another_order_in_every_pass_are_refused(many: tuple[Subject, Any, Any]) -> None:
    subject, train, loader = many
    with pytest.raises(SetupError, match="another order"):
        diagnose(subject, train, Other(loader), resamples=20)


def test_misfits_are_refused(many: tuple[Subject, Any, Any]) -> None:
    subject, train, loader = many
    with pytest.raises(SetupError, match="passed over"):
        diagnose(subject, train, iter(loader))
    with pytest.raises(SetupError, match="classes: expected 4 names"):
        diagnose(subject, train, loader, classes=["one"], resamples=20)
    with pytest.raises(SetupError, match="unknown modality 'd'"):
        diagnose(
            subject, train, loader, alone={"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5}, resamples=9
        )
    with pytest.raises(SetupError, match="b, c missing"):
        diagnose(subject, train, loader, alone={"a": 0.5}, resamples=9)
    with pytest.raises(SetupError, match="expected one value for each of 150 samples for a"):
        diagnose(
            subject, train, loader, alone={"a": torch.zeros(3), "b": 0.5, "c": 0.5}, resamples=9
        )


def test_what_cannot_be_is_said_before_encoders_are_trained_alone(
    many: tuple[Subject, Any, Any],
) -> None:
    subject, train, loader = many

    def never() -> dict[str, float]:
        raise AssertionError("training took hours")

    with pytest.raises(SetupError, match="classes: expected 4 names"):
        diagnose(subject, train, loader, alone=never, classes=["one"], resamples=20)
    with pytest.raises(SetupError, match="an accuracy between 0 and 1 for a, found 90"):
        diagnose(subject, None, loader, alone={"a": 90, "b": 70, "c": 30}, resamples=20)
    known = {"a": 0.9, "b": 0.7, "c": 0.3}
    found = diagnose(subject, None, loader, alone=lambda: known, resamples=20)
    assert found.alone is not None
    assert found.alone["a"].value == pytest.approx(0.9)


@pytest.mark.parametrize("part", ["the model", "b"])
def test_logits_that_are_no_numbers_are_counted(part: str) -> None:
    model = Many(3)
    *inputs, target = data(60)
    if part == "b":  # alone, where the other features are replaced by zeros

        class Divided(nn.Module):
            def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
                return (b[:, :4] / a[:, :4].norm(dim=1, keepdim=True)) + c[:, :4]

        model = Many(3, head=Divided())
    else:
        inputs[1][3:5] = torch.nan
    with (
        model.subject(scores=Ablation("zero")) as subject,
        pytest.raises(SetupError, match=f"{part}.* not numbers for"),
    ):
        diagnose(subject, None, loader_of([*inputs, target]), resamples=20)


def test_encoders_trained_alone_on_other_samples_are_refused(
    many: tuple[Subject, Any, Any],
) -> None:
    subject, train, loader = many
    interval = diagnose(subject, None, loader, resamples=20).accuracy
    names, target = subject.names, torch.zeros(150, dtype=torch.int64)
    reached = Alone(
        dict.fromkeys(names, interval),
        dict.fromkeys(names, torch.ones(150)),
        target,
        dict.fromkeys(names, 0),
        {name: [1.0] for name in names},
        subject,
    )
    with pytest.raises(SetupError, match="another order"):
        diagnose(subject, train, loader, alone=reached, resamples=20)


def test_a_regression_is_refused() -> None:
    model = Many(2, classes=1)
    with (
        model.subject(criterion=F.mse_loss) as subject,
        pytest.raises(MatchError, match="robustness take metric="),
    ):
        *inputs, target = data(60, 2)
        diagnose(subject, None, loader_of([*inputs, target[:, None].float()]))


# ------------------------------------------------------------------ JSON and text


def test_it_comes_back_from_json(many: tuple[Subject, Any, Any]) -> None:
    subject, _, loader = many
    for found in (slow(), diagnose(subject, None, loader, resamples=20)):
        written = json.loads(json.dumps(found.to_dict()))
        again = Diagnosis.from_dict(written)
        assert json.loads(json.dumps(again.to_dict())) == written
        assert str(again) == str(found)
        assert again.advice == found.advice


def test_other_json_is_refused() -> None:
    written = slow().to_dict()
    with pytest.raises(SetupError, match="expected format 1, found 2"):
        Diagnosis.from_dict({**written, "format": 2})
    del written["shapley"]
    with pytest.raises(SetupError, match="shapley missing"):
        Diagnosis.from_dict(written)


def test_the_report_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "diagnosis.json"
    path.write_text(json.dumps(slow().to_dict()))
    findings = read(path)
    assert not findings.notices
    assert findings.modalities == ("fast", "slow")
    assert findings.text("advice", "verdict") == "unimodal losses"
    assert findings.texts("advice", "ignored") == ["slow"]
    assert findings.measured("subsets", "mean")["fast+slow"].value == slow().accuracy.value
    assert set(findings.measured("gap")) == {"fast", "slow"}
    assert findings.reasons()


def test_the_page_is_narrow_and_ends_with_the_advice(many: tuple[Subject, Any, Any]) -> None:
    subject, train, loader = many
    long = replace(slow(), model="A model with a name of many words " * 5, data="d" * 70)
    found = diagnose(subject, train, loader, resamples=20, notes=["a note " * 30])
    for each in (slow(), long, found):
        text = str(each)
        wide = [line for line in text.splitlines() if len(line) > 80 and " " in line.strip()]
        assert not wide, wide
        assert "Advice: " in text[text.index("calibration error") :]
        for name in each.modalities:
            assert f"\n{name}\n" in text


def test_the_page_has_a_block_for_each_question(many: tuple[Subject, Any, Any]) -> None:
    subject, _, loader = many
    found = diagnose(subject, None, loader, resamples=20)
    gap = {"value": 0.4, "low": 0.3, "high": 0.5}
    leads = {"leads": {"a": [{"class": "2", "samples": 30, "gap": gap}]}}
    led = replace(found, agreement={**found.agreement, **leads})
    agreement, calibration, cost, advice = str(led).split("\n\n")[-4:]
    assert agreement.startswith("Right alone")
    assert agreement.endswith("  a leads in: 2 (+40)")
    assert calibration.startswith("  calibration error")
    assert advice.startswith("Advice: ")
    head, *lines = cost.splitlines()
    assert head == "Cost, with a batch of 16"
    shown = dict(re.split(r" {2,}", line.strip()) for line in lines)
    for name in "abc":
        assert shown[f"parameters of {name}"] == "20"
        assert shown[f"operations a sample, {name}"] == "30"
    assert float(shown["milliseconds of a forward"]) > 0
    assert float(shown["milliseconds of a training step"]) > 0

    assert found.advice is not None
    command = "equimodal " + "word " * 30
    once = replace(found.advice, next=("multi-loss", command))
    *lines, last = str(replace(found, advice=once)).splitlines()
    assert lines[-1] == "  - multi-loss"
    assert last == command, "one line, whatever its length, with nothing before it"
    assert all(len(line) <= 78 for line in lines)

    failed = {**found.cost, "seconds_step": None, "untimed": "ValueError: no"}
    assert "no training step was timed: ValueError: no" in str(replace(found, cost=failed))
    earlier = {n: v for n, v in found.cost.items() if n not in ("seconds_step", "untimed")}
    assert "training step" not in str(replace(found, cost=earlier))
