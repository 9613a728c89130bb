"""Curves over epochs: of a balancer, of a plain loop, of a run that was logged."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

import equimodal as eq
from equimodal.diagnostics.training.curves import Curves
from equimodal.diagnostics.training.gradients import gradients
from support.subjects import Many
from support.subjects import data as inputs_and_target
from support.worlds import World, batch, train


def right(model: torch.nn.Module, sample: tuple[torch.Tensor, ...]) -> float:
    *inputs, target = sample
    return float((model(*inputs).argmax(dim=1) == target).double().mean())


def test_a_run_is_recorded_as_the_balancer_saw_it() -> None:
    world = World()
    balancer, curves, held_out = (
        world.balance(eq.OGM(0.8), track_every=1),
        Curves(),
        batch(40, seed=7),
    )
    noted: list[list[dict[str, float]]] = []
    alone: list[dict[str, float]] = []
    joint = []
    for epoch in range(3):
        noted.append([])
        for step in range(4):
            train(balancer, [batch(seed=10 * epoch + step)])
            curves.note(balancer)
            noted[-1].append(balancer.metrics())
        balancer.end_epoch()
        curves.record(balancer, [held_out])
        with torch.no_grad():
            *inputs, target = held_out
            read = balancer.unimodal_logits(*inputs)
            alone.append(
                {n: float((u.argmax(1) == target).double().mean()) for n, u in read.items()}
            )
            joint.append(right(world.model, held_out))
    found = curves.to_dict()
    json.dumps(found, allow_nan=False)
    for series in ("evidence", "ratio", "coefficient", "gradient_norm", "update_norm"):
        for name in ("audio", "visual"):
            means = [sum(m[f"{series}/{name}"] for m in epoch) / 4 for epoch in noted]
            assert found[series][name] == pytest.approx(means)
    assert found["accuracy"] == {n: [epoch[n] for epoch in alone] for n in ("audio", "visual")}
    assert found["joint"] == {"accuracy": joint}
    assert len(set(joint)) > 1


def test_without_notes_the_latest_step_stands_for_the_epoch() -> None:
    world = World()
    balancer, curves = world.balance(eq.OGM(0.8)), Curves()
    train(balancer, [batch(seed=0), batch(seed=1)])
    curves.record(balancer)
    assert curves.to_dict()["ratio"]["audio"] == [balancer.metrics()["ratio/audio"]]
    assert "accuracy" not in curves.to_dict()
    assert "update_norm" not in curves.to_dict()  # nobody tracks it


def test_a_method_that_predicts_by_its_own_rule_is_read_by_it() -> None:
    world = World()
    balancer, curves, held_out = world.balance(eq.Ensemble()), Curves(), batch(40, seed=7)
    train(balancer, [batch(seed=seed) for seed in range(5)])
    curves.record(balancer, [held_out])
    *inputs, target = held_out
    with torch.no_grad():
        joint, alone = balancer.evaluate(*inputs)
    expected = {n: [float((u.argmax(1) == target).double().mean())] for n, u in alone.items()}
    assert curves.to_dict()["accuracy"] == expected
    of_rule = float((joint.argmax(1) == target).double().mean())
    assert curves.to_dict()["joint"]["accuracy"] == [of_rule]
    assert of_rule != right(world.model, held_out)


def test_a_plain_loop_and_any_other_diagnostic() -> None:
    model, curves = Many(2), Curves()
    *inputs, target = inputs_and_target(60, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    cosines, alone = [], []
    with model.subject(scores=eq.Ablation()) as subject:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(*inputs), target).backward()
            optimizer.step()
            cosine = gradients(subject, [(*inputs, target)]).cosine
            curves.record(subject, [(*inputs, target)], cosine=cosine, lag={"a": None, "b": 2})
            cosines.append(cosine["a"].value if cosine["a"] else None)
            features = model.features(inputs)
            read = model.head(features["a"], torch.zeros_like(features["b"]))
            alone.append(float((read.argmax(1) == target).double().mean()))
    found = curves.to_dict()
    assert found["cosine"]["a"] == cosines
    assert found["accuracy"]["a"] == alone
    assert found["lag"] == {"b": [2.0, 2.0, 2.0]}


def test_a_subject_beside_a_balancer_disturbs_nothing() -> None:
    plain, watched = World(), World()
    for world in (plain, watched):
        balancer = world.balance(eq.OGMGE(0.8))
        for epoch in range(2):
            train(balancer, [batch(seed=epoch)])
            if world is watched:
                from equimodal.diagnostics.subject import Subject

                with Subject(world.model, world.encoders, world.model.head) as subject:
                    Curves().record(
                        balancer, [batch(seed=9)], cosine=gradients(subject, [batch()]).cosine
                    )
    for one, other in zip(plain.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_resumed_run_goes_on_with_its_curves() -> None:
    def go_on(curves: Curves, balancer: eq.Balancer, start: int, stop: int) -> None:
        for step in range(start, stop):
            train(balancer, [batch(seed=step)])
            curves.note(balancer)
            if step % 2:
                curves.record(balancer, [batch(seed=9)])

    straight, balancer = Curves(), World().balance(eq.OGM(0.8))
    go_on(straight, balancer, 0, 6)
    first, world = Curves(), World()
    balancer = world.balance(eq.OGM(0.8))
    go_on(first, balancer, 0, 3)  # within an epoch
    state = json.loads(json.dumps(first.state_dict()))
    second = Curves()
    second.load_state_dict(state)
    go_on(second, balancer, 3, 6)
    assert second.to_dict() == straight.to_dict()
    assert len(first.epochs) == 1  # the state is a copy


def test_curves_of_a_run_that_was_logged() -> None:
    history = [
        {
            "lr": 0.1,
            "train/loss/joint": 1.0,
            "train/ratio/a/b": 2.0,
            "val/accuracy": 0.5,
            "val/accuracy/a/b": 0.4,
            "val/macro_f1": 0.3,
        },
        {"train/coefficient/a/b": math.nan, "val/accuracy": 0.75},
    ]
    assert Curves.from_history(history).to_dict() == {
        "loss": {"joint": [1.0, None]},
        "ratio": {"a/b": [2.0, None]},
        "coefficient": {"a/b": [None, None]},
        "joint": {"accuracy": [0.5, 0.75], "macro_f1": [0.3, None]},
        "accuracy": {"a/b": [0.4, None]},
    }


def test_an_empty_loader_is_refused() -> None:
    with Many(2).subject() as subject, pytest.raises(eq.SetupError, match="gave no batch"):
        Curves().record(subject, [])
