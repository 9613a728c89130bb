"""Teachers: where they come from, and that nothing about them changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equimodal as eq
from equimodal.methods.objective.umt import UMT
from equimodal.methods.teacher import Teacher, teachers_of
from support.teachers import teachers
from support.worlds import Net, World, batch, train, weights


def ensemble(method: eq.Method | None = None) -> tuple[World, eq.Balancer]:
    world = World()
    balancer = world.balance(method or eq.Ensemble())
    train(balancer, [batch(seed=seed) for seed in range(4)])
    return world, balancer


# ---------------------------------------------------------------------- from trained models


def test_an_ensemble_hands_out_a_teacher_for_every_modality() -> None:
    world, balancer = ensemble()
    found = teachers_of(balancer, batch())
    assert list(found) == ["audio", "visual"]
    *inputs, _ = batch(9, seed=9)
    with torch.no_grad():
        expected = balancer.unimodal_logits(*inputs)
        for (name, teacher), x in zip(found.items(), inputs, strict=True):
            logits, feature = teacher(x)
            assert torch.equal(logits, expected[name])
            assert torch.equal(feature, world.encoders[name](x))


def test_a_unimodal_model_hands_out_the_one_that_was_trained() -> None:
    _, balancer = ensemble(eq.Unimodal("visual"))
    assert list(teachers_of(balancer, batch())) == ["visual"]


def test_they_are_copies_without_a_trace_of_the_balancer() -> None:
    world, balancer = ensemble()
    found = teachers_of(balancer, batch())
    before = {name: weights(teacher) for name, teacher in found.items()}
    train(balancer, [batch(seed=9)])
    assert all(torch.equal(weights(found[name]), value) for name, value in before.items())
    assert not any(m._forward_hooks for t in found.values() for m in t.modules())
    assert all(module.training for module in world.model.modules())


def test_a_loop_from_the_ensemble_to_the_student() -> None:
    _, balancer = ensemble()
    world = World(seed=3)
    student = world.balance(UMT(teachers_of(balancer, batch())))
    train(student, [batch(seed=seed) for seed in range(3)])
    assert student.metrics()["loss/umt/audio"] > 0


def test_what_trains_no_unimodal_models_has_no_teachers() -> None:
    _, balancer = ensemble(eq.Joint())
    with pytest.raises(eq.SetupError, match=r"expected a balancer with eq\.Ensemble.*found Joint"):
        teachers_of(balancer, batch())


def test_before_the_first_step_there_are_none() -> None:
    with pytest.raises(eq.SetupError, match="before its first step"):
        teachers_of(World().balance(eq.Ensemble()), batch())


class Projected(Net):
    """The head is given something else than what the encoder returns, of the same width."""

    def __init__(self) -> None:
        super().__init__()
        self.between = nn.Linear(8, 8)

    def forward(self, *inputs: Tensor) -> Tensor:
        pairs = zip(self.encoders.values(), inputs, strict=True)
        features = [self.between(encoder(x)) for encoder, x in pairs]
        return self.head(torch.cat(features, dim=1))


def test_layers_between_encoder_and_head_are_noticed() -> None:
    model = Projected().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = eq.Balancer(
        eq.Ensemble(),
        model,
        model.encoders,
        model.head,
        optimizer,
        features={"audio": slice(0, 8), "visual": slice(8, 16)},
    )
    train(balancer, [batch()], model=model)
    with pytest.raises(eq.SetupError, match=r"encoders\['audio'\] and the classifier alone"):
        teachers_of(balancer, batch())


def test_encoders_of_several_modules_are_refused() -> None:
    world = World()
    parts = {name: [encoder[0], encoder[2]] for name, encoder in world.encoders.items()}
    balancer = eq.Balancer(
        eq.Ensemble(),
        world.model,
        parts,
        world.model.head,
        world.optimizer,
        features={"audio": slice(0, 8), "visual": slice(8, 16)},
    )
    train(balancer, [batch()])
    with pytest.raises(eq.SetupError, match="consists of 2 modules"):
        teachers_of(balancer, batch())


# ---------------------------------------------------------------------- defects of public code


class Noisy(nn.Module):
    """BatchNorm and dropout, which BalanceMM leaves in training mode."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout()
        self.encoder = nn.Linear(width, 8)
        self.classifier = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.encoder(self.dropout(self.norm(x)))
        return self.classifier(feature), feature


def test_teachers_are_frozen_and_in_evaluation_mode_and_the_users_own_are_left_alone() -> None:
    given = {"audio": Noisy(4).double(), "visual": Noisy(5).double()}
    before = copy.deepcopy({name: module.state_dict() for name, module in given.items()})
    world = World()
    method = UMT(given)
    balancer = world.balance(method)
    state = torch.get_rng_state()
    train(balancer, [batch(seed=seed) for seed in range(3)])
    assert torch.equal(torch.get_rng_state(), state)  # no dropout was drawn
    for name, module in given.items():
        assert module.training
        assert all(parameter.requires_grad for parameter in module.parameters())
        held = method._teachers.modules[name]
        assert not held.training
        for key, value in before[name].items():
            assert torch.equal(module.state_dict()[key], value)
            assert torch.equal(held.state_dict()[key], value)


def test_the_students_own_encoder_teaches_as_it_was() -> None:
    world = World()
    given = {n: Teacher(e, nn.Linear(8, 3).double()) for n, e in world.encoders.items()}
    balancer = world.balance(UMT(given))
    *inputs, target = batch()
    balancer.loss(world.model(*inputs), target)
    assert balancer.metrics()["loss/umt/audio"] == 0
    train(balancer, [batch(seed=seed) for seed in range(3)])
    balancer.loss(world.model(*inputs), target)
    assert balancer.metrics()["loss/umt/audio"] > 0


# ---------------------------------------------------------------------- state


def test_teachers_enter_no_state_and_no_optimizer() -> None:
    world = World()
    balancer = world.balance(UMT(teachers()))
    train(balancer, [batch()])
    state = balancer.state_dict()
    assert list(state["methods"]["umt"]) == ["_extra_state"]
    assert set(state["methods"]["umt"]["_extra_state"]) == {"audio", "visual"}
    assert state["own_optimizer"] == {}


def test_a_state_of_other_teachers_is_refused() -> None:
    balancer = World().balance(UMT(teachers()))
    state = balancer.state_dict()
    World().balance(UMT(teachers())).load_state_dict(state)
    with pytest.raises(eq.SetupError, match="UMT: this state is of another teacher for audio"):
        World().balance(UMT(teachers(seed=8))).load_state_dict(state)
    changed = teachers()
    with torch.no_grad():
        changed["visual"].classifier.bias[-1] += 1e-12
    with pytest.raises(eq.SetupError, match="another teacher for visual"):
        World().balance(UMT(changed)).load_state_dict(state)


# ---------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "expected a module for each modality"),
        ([nn.Linear(1, 1)], "expected a module for each modality"),
        ({"audio": "resnet"}, r"teachers\['audio'\]: expected a module, found 'resnet'"),
    ],
)
def test_what_is_no_teacher_is_refused(given: Any, said: str) -> None:
    with pytest.raises(eq.SetupError, match=said):
        UMT(given)


def test_a_modality_without_a_teacher_is_refused_when_attached() -> None:
    with pytest.raises(eq.SetupError, match=r"UMT: no teacher for visual, there are .* for audio"):
        World().balance(UMT({"audio": teachers()["audio"]}))


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (nn.Linear(4, 3), r"teachers\['audio'\]: expected \(logits, feature\), found Tensor"),
        (Teacher(nn.Linear(4, 8), nn.Linear(8, 2)), r"expected logits of shape \(24, 3\), found"),
        (Teacher(nn.Linear(4, 9), nn.Linear(9, 3)), "a feature that is 8 wide"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(teacher: nn.Module, said: str) -> None:
    world = World()
    balancer = world.balance(UMT({**teachers(), "audio": teacher}))
    *inputs, target = batch()
    with pytest.raises(eq.MatchError, match=said):
        balancer.loss(world.model(*inputs), target)


def test_a_teacher_in_another_precision_is_given_its_own() -> None:
    world = World()
    single = {name: module.float() for name, module in teachers().items()}
    balancer = world.balance(UMT(single))
    *inputs, target = batch()
    balancer.loss(world.model(*inputs), target)
    double = world.balance(UMT(teachers()))
    double.loss(world.model(*inputs), target)
    assert balancer.metrics()["loss/umt/audio"] == pytest.approx(
        double.metrics()["loss/umt/audio"], rel=1e-5
    )
